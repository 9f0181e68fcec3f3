"""Names of contexts that agents did not take over."""

from hypothesis import given
from hypothesis import strategies as st
from simulation.world import World, simulated

from proxy.loops.foreign_contexts import ForeignContexts


def test_each_caller_has_names_of_its_own_and_the_newest_holds() -> None:
    names = ForeignContexts(10)
    assert not names
    names.learn("a", "c", "one")
    names.learn("b", "c", "two")
    names.learn(None, "c", "three")
    names.learn("a", "c", "four")
    assert names
    assert [names.of(who) for who in ("a", "b", None, "d")] == [{"c": "four"}, {"c": "two"}, {"c": "three"}, {}]


def test_the_one_learnt_longest_ago_is_forgotten_first() -> None:
    names = ForeignContexts(2)
    names.learn("a", "first", "1")
    names.learn("b", "second", "2")
    names.learn("a", "first", "1 again")
    names.learn("a", "third", "3")
    assert (names.of("a"), names.of("b")) == ({"first": "1 again", "third": "3"}, {})


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from("xyz"), st.text(max_size=2)), max_size=40),
)
def test_it_holds_the_newest_and_no_more(most: int, learnt: list[tuple[str | None, str, str]]) -> None:
    names = ForeignContexts(most)
    for caller, ours, theirs in learnt:
        names.learn(caller, ours, theirs)
    model: dict[tuple[str | None, str], str] = {}
    for caller, ours, theirs in reversed(learnt):
        if len(model) < most:
            model.setdefault((caller, ours), theirs)
    assert {(who, ours): theirs for who in (None, "a", "b") for ours, theirs in names.of(who).items()} == model


@simulated
async def test_as_many_are_remembered_of_a_workspace_as_is_configured(world: World) -> None:
    await world.given()
    app = await world.start({"queue.contexts": 1})
    app.routing.know_context("ws", "a", "first", "1")
    app.routing.know_context("ws", "a", "second", "2")
    assert world.route().foreign_contexts.of("a") == {"second": "2"}
