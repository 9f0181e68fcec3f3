"""Digests and the form of provisional ids."""

import json
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import (
    PROVISIONAL_HINT,
    Binding,
    MalformedBody,
    digest,
    is_provisional,
    new_context_id,
    provisional_id,
)
from proxy.core.a2a.identity import derived_id


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - ids are names here, not secrets


NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


@given(st.integers(), st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - UTC is given
def test_a_provisional_id_is_a_uuid_of_version_8_that_starts_with_4a2(seed, now):
    made = provisional_id(seeded(seed), now)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, made)
    assert parsed.int >> 116 == 0x4A2
    assert is_provisional(made)
    assert PROVISIONAL_HINT.search(f'{{"id":"{made}"}}'.encode())


def test_provisional_ids_differ():
    chance = seeded(1)
    assert len({provisional_id(chance, NOW) for _ in range(1000)}) == 1000


@given(st.uuids(version=4))
def test_ids_that_agents_make_are_not_provisional(made):
    assert not is_provisional(str(made))
    assert PROVISIONAL_HINT.search(str(made).encode()) is None


def test_only_the_whole_text_exactly_as_given_is_provisional():
    made = provisional_id(seeded(2), NOW)
    for other in (made + "0", "0" + made, made.upper(), made.replace("-", ""), made + "\n", ""):
        assert not is_provisional(other)


def test_a_new_context_id_is_a_uuid_of_version_7():
    made = uuid.UUID(new_context_id(seeded(3), NOW))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(NOW.timestamp() * 1000)
    assert str(made) == new_context_id(seeded(3), NOW) != new_context_id(seeded(4), NOW)


@given(st.integers(0, 2**40), st.integers(1, 2**40))
def test_ids_that_are_made_later_sort_behind(first, later):
    """New entries of an index lie side by side then. An hour is 3.6e9 microseconds; ids tell milliseconds apart."""
    early, late = (NOW + timedelta(microseconds=count) for count in (first, first + later))
    assert new_context_id(seeded(1), early)[:18] <= new_context_id(seeded(2), late)[:18]
    assert provisional_id(seeded(1), early)[:18] <= provisional_id(seeded(2), late)[:18]
    if later >= 1000:
        assert new_context_id(seeded(1), early) < new_context_id(seeded(2), late)
        assert provisional_id(seeded(1), early) < provisional_id(seeded(2), late)


def test_a_derived_id_depends_on_its_names_only():
    assert derived_id("a", "b") == derived_id("a", "b") != derived_id("a", "c")


MESSAGE = {
    "messageId": "m",
    "role": "user",
    "parts": [{"kind": "text", "text": "h\u00e9"}],
    "metadata": {"b": 1, "a": 2.5},
}


def rpc(message: object, rpc_id: object = 1, **more: object) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": rpc_id, "method": "message/send", "params": {"message": message}} | more
    ).encode()


def test_a_retry_has_the_same_digest_however_it_is_written():
    turned = dict(reversed(MESSAGE.items())) | {"metadata": {"a": 2.5, "b": 1}}
    spaced = json.dumps(json.loads(rpc(turned, "other id")), indent=2, ensure_ascii=False).encode()
    assert digest(rpc(MESSAGE)) == digest(spaced)


def test_a_message_has_one_digest_in_json_rpc_and_rest():
    assert digest(rpc(MESSAGE)) == digest(json.dumps({"message": MESSAGE, "configuration": {}}).encode())


@pytest.mark.parametrize(
    "changed",
    [
        MESSAGE | {"messageId": "n"},
        MESSAGE | {"parts": []},
        MESSAGE | {"metadata": {"b": 1, "a": 2}},
        MESSAGE | {"contextId": "c"},
    ],
)
def test_another_message_has_another_digest(changed):
    assert digest(rpc(MESSAGE)) != digest(rpc(changed))


def test_a_json_rpc_body_without_a_message_is_told_by_everything_but_its_id():
    assert digest(rpc(5, 1)) == digest(rpc(5, 2)) != digest(rpc(6, 1))


def test_what_is_not_a2a_is_told_by_the_whole_body():
    assert digest(b'{"a":1,"b":2}') == digest(b'{ "b":2, "a":1 }') != digest(b'{"a":1,"b":3}')
    assert digest(b"plain") != digest(b"plain ")
    outer = json.dumps({"message": MESSAGE, "n": 1}).encode(), json.dumps({"message": MESSAGE, "n": 2}).encode()
    assert digest(outer[0], binding=Binding.OTHER) != digest(outer[1], binding=Binding.OTHER)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","params":{"message":{"messageId":"m","parts":[{"text":"\xff"}]}}}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":1e999}',
        b'{"a":NaN}',
        b"{",
    ],
)
def test_what_starts_as_an_object_and_is_none_must_not_be_stored(body):
    with pytest.raises(MalformedBody):
        digest(body)
    assert len(digest(body, binding=Binding.OTHER)) == 64


@given(st.binary(max_size=40))
def test_any_bytes_have_a_digest_or_are_malformed(body):
    try:
        assert len(digest(body)) == 64
    except MalformedBody:
        assert body.lstrip().startswith(b"{")
