"""The edges of a workspace's status, written down a second time, and what nobody may do."""

import itertools

import pytest

from proxy.core.lifecycle import EDGES, PARKED, SERVING, Cause, Desired, IllegalMove, Status, may_move, move

LEGAL = """
starting   -> ready      probe beat registration
ready      -> degraded   beat probe
degraded   -> ready      beat probe registration
ready      -> starting   new_boot
degraded   -> starting   new_boot
ready      -> restarting coordinator
degraded   -> restarting coordinator
starting   -> restarting coordinator
offline    -> restarting coordinator
abandoned  -> restarting coordinator
ready      -> offline    verdict stale admin
degraded   -> offline    verdict stale admin
starting   -> offline    verdict stale admin
restarting -> starting   coordinator new_boot
restarting -> offline    coordinator
restarting -> abandoned  brake
offline    -> abandoned  brake
starting   -> abandoned  brake
offline    -> starting   registration new_boot admin
abandoned  -> starting   registration new_boot admin
offline    -> ready      registration beat probe
"""


def legal() -> set[tuple[Status, Status, Cause]]:
    found = set()
    for line in LEGAL.strip().splitlines():
        source, _, target, *causes = line.split()
        found |= {(Status(source), Status(target), Cause(cause)) for cause in causes}
    return found


def test_a_status_moves_along_these_edges_and_no_others() -> None:
    triples = itertools.product(Status, Status, Cause)
    moves = {(source, target, cause) for source, target, cause in triples if may_move(source, target, cause)}
    assert {(source, target, cause) for source, target, cause in moves if source is not target} == legal()


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("cause", Cause)
def test_staying_put_is_always_legal(status: Status, cause: Cause) -> None:
    assert move(status, status, cause) is status


def test_a_legal_move_leads_to_its_target() -> None:
    for source, target, cause in legal():
        assert move(source, target, cause) is target


def test_an_illegal_move_is_an_error_that_names_it() -> None:
    with pytest.raises(IllegalMove, match="abandoned -> ready by beat is no edge"):
        move(Status.ABANDONED, Status.READY, Cause.BEAT)


def test_no_edge_is_written_down_twice_or_leads_nowhere() -> None:
    pairs = [(edge.source, edge.target) for edge in EDGES]
    assert len(pairs) == len(set(pairs))
    assert all(source is not target for source, target in pairs)
    assert all(edge.causes for edge in EDGES)


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_way_to_ready(status: Status) -> None:
    reached, waiting = {status}, [status]
    while waiting:
        here = waiting.pop()
        for edge in EDGES:
            if edge.source is here and edge.target not in reached:
                reached.add(edge.target)
                waiting.append(edge.target)
    assert Status.READY in reached


def test_no_verdict_ends_a_restart_and_no_sign_of_life_begins_one() -> None:
    assert not any(may_move(Status.RESTARTING, target, Cause.VERDICT) for target in Status if target != "restarting")
    begins = {edge.causes for edge in EDGES if edge.target is Status.RESTARTING}
    assert begins == {frozenset({Cause.COORDINATOR})}


def test_only_who_is_wanted_running_is_not_parked() -> None:
    assert set(Desired) - PARKED == {Desired.RUNNING}
    assert {Status.STARTING, Status.READY, Status.DEGRADED} == SERVING
