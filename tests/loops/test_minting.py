"""Ids: unguessable, and in the order in which they were made, across restarts too."""

import random
import uuid
from datetime import UTC, datetime, timedelta

from proxy.loops.minting import Mint

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def mint(seed: int, started: datetime = START) -> Mint:
    return Mint(random.Random(seed), lambda: started)  # noqa: S311 - ids are names here, not secrets


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    first, later = mint(1), mint(2, START + timedelta(seconds=1))
    made = [*(first.new_id() for _ in range(1000)), *(later.new_id() for _ in range(1000))]
    assert made == sorted(set(made))
    assert {uuid.UUID(each).version for each in made} == {8}


def test_the_same_place_in_the_order_is_told_apart_by_chance() -> None:
    one, other = mint(1).new_id(), mint(2).new_id()
    assert one != other
    assert uuid.UUID(one).int >> 64 == uuid.UUID(other).int >> 64
