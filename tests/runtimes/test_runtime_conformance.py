"""What every runtime promises, whatever it is made of. Runtimes are found by listing the package."""

import importlib

import pytest

from proxy import runtimes
from proxy.core.liveness import ProbeState
from proxy.runtimes import Adopted, Exited, Launch, RuntimeFailure

RUNS = {ProbeState.RUNNING, ProbeState.STARTING}


def of_kind(*, tells: bool) -> list[str]:
    found = {name: importlib.import_module(f"proxy.runtimes.{name}").Runtime for name in runtimes.names()}
    return [name for name, kind in found.items() if kind.tells is tells]


every = pytest.mark.parametrize("name", runtimes.names())
telling = pytest.mark.parametrize("name", of_kind(tells=True))
silent = pytest.mark.parametrize("name", of_kind(tells=False))


def test_the_package_lists_the_runtimes_and_only_them() -> None:
    assert {"command", "none", "process", "webhook"} <= set(runtimes.names())
    assert {"launcher", "outside", "errand"}.isdisjoint(runtimes.names())


def test_an_unknown_name_is_refused_with_the_names_there_are(bench) -> None:
    with pytest.raises(RuntimeFailure, match=r"there are command, .*none, process") as caught:
        bench.runtime("../process")
    assert caught.value.reason == "unknown_runtime"


def test_a_launch_shows_no_secret(launch) -> None:
    made = launch(
        {"type": "process", "env": {"KEY": "s3cret"}}, env={"HOLDFAST_TOKEN": "hf_secret"}, data=b"private data"
    )
    assert not any(secret in repr(made) for secret in ("s3cret", "hf_secret", "private"))


@every
async def test_the_name_in_the_configuration_is_the_name_of_the_file(bench, name: str) -> None:
    assert bench.runtime(name).name == name


@every
async def test_its_own_section_is_accepted_and_a_mistyped_key_is_named(bench, rig, name: str) -> None:
    runtime = bench.runtime(name)
    assert runtime.check(rig(name).lasting_spec()) == []
    assert any("comand" in problem for problem in runtime.check(rig(name).lasting_spec() | {"comand": ["x"]}))


@every
async def test_a_first_adoption_finds_nothing(bench, name: str) -> None:
    assert await bench.runtime(name).adopt() == []


@every
async def test_removing_what_never_ran_is_a_success(bench, name: str) -> None:
    await bench.runtime(name).remove("alpha", 0)


@telling
async def test_what_never_ran_is_not_running_rather_than_gone(bench, name: str) -> None:
    assert await bench.runtime(name).inspect("alpha", 1) is ProbeState.NOT_RUNNING


@telling
async def test_a_started_instance_runs_and_a_second_start_of_its_generation_is_the_first(
    bench, rig, launch, name: str
) -> None:
    runtime = bench.runtime(name)
    first = await runtime.start(launch(rig(name).lasting_spec(), 3))
    assert await runtime.inspect("alpha", 3) in RUNS
    assert await runtime.start(launch(rig(name).lasting_spec(), 3)) == first
    assert await runtime.start(launch(rig(name).lasting_spec(), 2)) == first, "a newer one runs: that is finished too"


@telling
async def test_stop_ends_older_generations_and_never_its_own(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).lasting_spec(), 2))
    await runtime.stop("alpha", 2, 5)
    assert await runtime.inspect("alpha", 2) in RUNS
    await runtime.stop("alpha", 3, 5)
    assert await runtime.inspect("alpha", 2) is ProbeState.NOT_RUNNING, "our own stop is never evidence of a death"
    told = bench.exits.get_nowait()
    assert (told.workspace_id, told.incarnation, told.expected) == ("alpha", 2, True)
    await runtime.stop("alpha", 3, 5)
    assert bench.exits.empty()


@telling
async def test_after_a_stop_no_older_generation_starts_however_late(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.stop("alpha", 5, 5)
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(rig(name).lasting_spec(), 4))
    assert caught.value.reason == "fenced"
    assert await runtime.inspect("alpha", 4) is ProbeState.NOT_RUNNING
    await runtime.start(launch(rig(name).lasting_spec(), 5))
    assert await runtime.inspect("alpha", 5) in RUNS


@telling
async def test_nothing_starts_beside_a_live_older_generation(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).lasting_spec(), 1))
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(rig(name).lasting_spec(), 2))
    assert caught.value.reason == "still_running"
    assert await runtime.inspect("alpha", 1) in RUNS


@telling
async def test_an_end_that_nobody_asked_for_is_told_and_gone(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).ending_spec(7), 1))
    told = await bench.exits.get()
    assert (told.workspace_id, told.incarnation, told.exit_code, told.expected) == ("alpha", 1, 7, False)
    assert await runtime.inspect("alpha", 1) is ProbeState.GONE
    assert await runtime.inspect("alpha", 2) is ProbeState.NOT_RUNNING, "of the next life nothing is known to have run"


@telling
async def test_an_instance_that_ended_is_not_started_again_under_its_own_name(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).ending_spec(0), 1))
    await bench.exits.get()
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(rig(name).lasting_spec(), 1))
    assert caught.value.reason == "already_ended"
    await runtime.start(launch(rig(name).lasting_spec(), 2))


@telling
async def test_an_older_life_is_gone_once_a_newer_one_runs(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).lasting_spec(), 2))
    assert await runtime.inspect("alpha", 1) is ProbeState.GONE
    assert await runtime.inspect("alpha", 3) in RUNS, "an agent may begin a new life without a new process"


@telling
async def test_an_instance_outlives_the_proxy_and_is_adopted_by_the_next(bench, rig, launch, name: str) -> None:
    before = bench.runtime(name)
    started = await before.start(launch(rig(name).lasting_spec(), 4, incarnation=9))
    await before.aclose()
    after = bench.runtime(name)
    assert await after.adopt() == [
        Adopted(workspace_id="alpha", incarnation=9, generation=4, handle=started.handle, started_at=started.started_at)
    ]
    assert await after.inspect("alpha", 9) in RUNS
    assert await after.start(launch(rig(name).lasting_spec(), 4, incarnation=9)) == started
    await after.stop("alpha", 5, 5)
    assert bench.exits.get_nowait().expected is True


@telling
async def test_each_adoption_tells_the_latest_end_again(bench, rig, launch, name: str) -> None:
    before = bench.runtime(name)
    await before.start(launch(rig(name).ending_spec(3), 1))
    told = await bench.exits.get()
    await before.aclose()
    for _ in range(2):
        after = bench.runtime(name)
        adopted = await after.adopt()
        assert adopted == [told]
        assert isinstance(adopted[0], Exited)
        await after.aclose()


@telling
async def test_a_removed_workspace_is_forgotten_with_its_generations(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).lasting_spec(), 7))
    await runtime.remove("alpha", 5)
    assert await runtime.inspect("alpha", 7) is ProbeState.NOT_RUNNING
    await runtime.start(launch(rig(name).lasting_spec(), 1))
    assert await runtime.inspect("alpha", 1) in RUNS


@telling
async def test_workspaces_do_not_touch_each_other(bench, rig, launch, name: str) -> None:
    runtime = bench.runtime(name)
    await runtime.start(launch(rig(name).lasting_spec(), 1))
    await runtime.start(launch(rig(name).lasting_spec(), 1, workspace_id="beta"))
    await runtime.stop("alpha", 2, 5)
    assert await runtime.inspect("beta", 1) in RUNS


@silent
async def test_a_runtime_that_cannot_tell_says_so_and_refuses_to_act(bench, rig, name: str) -> None:
    runtime = bench.runtime(name)
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR
    made = Launch(workspace_id="alpha", incarnation=1, generation=1, spec=rig(name).lasting_spec(), env={})
    for refused in (runtime.start(made), runtime.stop("alpha", 1, 0)):
        with pytest.raises(RuntimeFailure) as caught:
            await refused
        assert caught.value.reason == "unmanaged"
