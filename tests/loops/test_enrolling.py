"""Registration, settings and removal: what is written, what is refused as a whole, and what follows."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation.scripted import Reacts
from simulation.world import SIMULATED, World, at, fails, simulated

from proxy.core.decision import Trigger
from proxy.core.deferral import State
from proxy.core.errors import CallerError
from proxy.core.lifecycle import Desired, Status
from proxy.core.workspace import UrlSource, Workspace
from proxy.loops.enrolling import Enrolled
from proxy.store.memory import MemoryStore
from proxy.telemetry import EventName


async def put(world: World, workspace_id: str = "ws", *, by_admin: bool = True, **said: Any) -> Enrolled:
    return await world.app.enrolling.put(workspace_id, said, by_admin=by_admin)


def is_ready(world: World) -> bool:
    return world.route().workspace.status is Status.READY


# --- registration ----------------------------------------------------------------------------------------------------


@simulated
async def test_a_new_workspace_gets_a_token_once_and_is_ready_when_it_answers(world: World) -> None:
    await world.start()
    enrolled = await put(world, url=world.url())
    assert (enrolled.created, enrolled.route.workspace.status) == (True, Status.STARTING)
    assert enrolled.token is not None
    assert (await world.request("POST", "/workspaces/ws/heartbeat", Holdfast_Token=enrolled.token)).status == 200
    await world.eventually(lambda: is_ready(world))
    again = await put(world, url=world.url())
    assert (again.created, again.token) == (False, None)
    assert [event.name for event in world.events].count(EventName.WORKSPACE_CREATED) == 1


@simulated
async def test_a_workspace_that_registers_itself_is_ready_and_alive(world: World) -> None:
    await world.start()
    await world.until(3)
    await put(world, by_admin=False, url=world.url(), boot_id="one")
    row = await world.row()
    assert (row.status, row.url_source, row.boot_id) == (Status.READY, UrlSource.ANNOUNCED, "one")
    assert world.route().signs.last_sign_at == at(3)
    assert (await world.call()).status == 200


@simulated
async def test_a_declared_workspace_with_a_runtime_is_started_once(world: World) -> None:
    await world.start()
    for _ in range(3):
        await put(world, url=world.url(), runtime=SIMULATED)
    await world.eventually(lambda: is_ready(world))
    await put(world, url=world.url(), runtime=SIMULATED, max_concurrent=3)
    await asyncio.sleep(10)
    assert world.machine().verbs() == [("stop", 1), ("start", 1)]
    assert world.route().capacity == 3


@pytest.mark.parametrize("status", [Status.OFFLINE, Status.ABANDONED])
@simulated
async def test_an_admin_s_declaration_starts_what_is_down(world: World, status: Status) -> None:
    await world.given(status=status, generation=3, incarnation=4)
    await world.start()
    world.machine().ready.usual = False
    await put(world, url=world.url(), runtime=SIMULATED)
    world.machine().ready.usual = True
    await world.eventually(lambda: is_ready(world))
    assert world.machine().verbs() == [("stop", 4), ("start", 4)]


@simulated
async def test_a_paused_workspace_may_be_described_and_is_not_started(world: World) -> None:
    await world.given(desired=Desired.PAUSED, status=Status.OFFLINE)
    await world.start()
    await put(world, url=world.url(), runtime=SIMULATED)
    await asyncio.sleep(10)
    assert world.machine().acts == []


@simulated
async def test_workspaces_of_the_configuration_are_declared_at_each_start(world: World) -> None:
    tables = {"ws": {"url": world.url(), "runtime": dict(SIMULATED)}}
    await world.start()
    world.app.config = replace(world.app.config, workspaces=tables)
    await world.app._declare("ws", tables["ws"])
    await world.eventually(lambda: is_ready(world))
    await world.app._declare("ws", {"url": world.url(), "max_concurrent": 0})
    warnings = [event.fields["warning"] for event in world.events if event.name == EventName.CONFIG_WARNING]
    assert len(warnings) == 1
    assert str(warnings[0]).startswith("[workspaces.ws]: ")
    assert world.machine().verbs() == [("stop", 1), ("start", 1)]


@simulated
async def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_written(world: World) -> None:
    await world.start()
    with pytest.raises(CallerError) as refused:
        await put(
            world,
            url="http://169.254.169.254/latest",
            parent="ws",
            policy={"settle_hold": 50.0, "settle_window": 10.0},
        )
    problems = refused.value.facts["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 3
    assert await world.store.workspace("ws") is None
    with pytest.raises(CallerError, match="a push workspace needs a url"):
        await put(world, by_admin=False)


@simulated
async def test_a_change_that_is_refused_changes_nothing(world: World) -> None:
    await world.given()
    await world.start()
    before = await world.row()
    with pytest.raises(CallerError):
        await put(world, url="http://127.0.0.1:1", max_concurrent=5)
    with pytest.raises(CallerError):
        await world.app.enrolling.configure(world.route(), {"url": "http://10.0.0.1"}, request_id=None)
    assert await world.row() == before
    assert world.machine().acts == []


class Racing(MemoryStore):
    """Lets somebody else write first, once, before a write of this kind."""

    def __init__(self, kind: str, first: Callable[["Racing"], Any]) -> None:
        super().__init__()
        self.kind = kind
        self.first: Callable[[Racing], Any] | None = first

    async def _overtaken(self, kind: str) -> None:
        if kind == self.kind and self.first is not None:
            first, self.first = self.first, None
            await first(self)

    async def create(self, workspace: Workspace, **said: Any) -> Workspace | None:
        await self._overtaken("create")
        return await super().create(workspace, **said)

    async def replace(self, workspace: Workspace, **said: Any) -> Workspace | None:
        await self._overtaken("replace")
        return await super().replace(workspace, **said)


@simulated
async def test_a_registration_that_another_proxy_overtook_is_a_change_of_what_that_one_made(world: World) -> None:
    async def other(store: Racing) -> None:
        await store.create(Workspace(id="ws", created_at=at(-1), parent="theirs", url="http://other.test"))

    world.store = Racing("create", other)
    await world.start()
    enrolled = await put(world, url=world.url())
    row = await world.row()
    assert (enrolled.created, enrolled.token) == (False, None)
    assert (row.parent, row.url) == ("theirs", world.url())


@simulated
async def test_a_registration_that_loses_its_race_is_derived_anew(world: World) -> None:
    async def other(store: Racing) -> None:
        row = await store.workspace("ws")
        assert row is not None
        await store.replace(replace(row, data='"theirs"'))

    world.store = Racing("replace", other)
    await world.given()
    await world.start()
    await put(world, url=world.url(), parent="ours")
    row = await world.row()
    assert (row.data, row.parent) == ('"theirs"', "ours")


# --- configuration ---------------------------------------------------------------------------------------------------


@simulated
async def test_launch_settings_are_merged_member_by_member(world: World) -> None:
    runtime = {**SIMULATED, "command": ["/bin/old"], "env": {"A": "1", "B": "2"}, "cwd": "/srv"}
    await world.given(announced=True, boot_id="one")
    await world.start()
    await world.app.records.change(world.route(), lambda known: replace(known, runtime=runtime))
    said = {"env": {"A": None, "C": "3"}, "command": ["/bin/new"], "data": {"x": [1]}, "url": world.url()}
    version, asked = await world.app.enrolling.configure(world.route(), said, request_id="r-1")
    assert (version, asked.decision.answer) == (1, "scheduled")
    row = await world.row()
    assert row.runtime == {**runtime, "command": ["/bin/new"], "env": {"B": "2", "C": "3"}}
    assert (row.data, row.url, row.url_source) == ('{"x":[1]}', world.url(), UrlSource.CONFIGURED)
    await world.eventually(lambda: is_ready(world))
    [launch] = world.machine().launches
    assert (launch.spec, launch.data) == (row.runtime, b'{"x":[1]}')
    assert (await world.decisions())[0].action == "configuration written"


@simulated
async def test_each_write_has_a_version(world: World) -> None:
    await world.given()
    await world.start()
    versions = [
        (await world.app.enrolling.configure(world.route(), {"data": number}, request_id=None))[0]
        for number in range(3)
    ]
    assert versions == [1, 2, 3]


# --- removal ---------------------------------------------------------------------------------------------------------


@simulated
async def test_a_removed_workspace_takes_its_deferrals_and_tokens_along_and_its_compute_stops(world: World) -> None:
    await world.start()
    enrolled = await put(world, url=world.url(), runtime=SIMULATED)
    await world.eventually(lambda: is_ready(world))
    await put(world, by_admin=False, url=world.url())
    world.agent().reacts.usual = fails()
    reply = await world.call()
    assert reply.status == 202
    await world.app.enrolling.remove(world.route(), request_id=None)
    await asyncio.sleep(1)
    assert world.machine().verbs()[-1] == ("remove", 0)
    cancelled = await world.deferral(reply.receipt)
    assert (cancelled.state, cancelled.last_error) == (State.CANCELLED, "the workspace was removed")
    assert enrolled.token is not None
    assert (await world.request("POST", "/workspaces/ws/heartbeat", Holdfast_Token=enrolled.token)).status == 401
    assert (await world.call()).status == 404
    heard = len(world.agent().heard)
    await asyncio.sleep(300)
    assert len(world.agent().heard) == heard
    await world.crash()
    await world.start()
    assert (await world.call()).status == 404


@simulated
async def test_only_the_admin_brings_a_removed_workspace_back_and_it_keeps_nothing(world: World) -> None:
    await world.given(data='"old"', incarnation=3, generation=2)
    await world.start()
    await world.app.enrolling.remove(world.route(), request_id=None)
    with pytest.raises(CallerError, match="was removed") as refused:
        await put(world, by_admin=False, url=world.url())
    assert refused.value.status == 403
    enrolled = await put(world, url=world.url())
    assert enrolled.created
    row = await world.row()
    assert (row.incarnation, row.generation, row.data, row.desired) == (4, 2, None, Desired.RUNNING)
    await world.eventually(lambda: is_ready(world))
    assert (await world.call()).status == 200


@simulated
async def test_a_change_that_meets_a_removal_does_not_bring_the_workspace_back(world: World) -> None:
    async def other(store: Racing) -> None:
        row = await store.workspace("ws")
        assert row is not None
        line = world.app.records.decision(row, Trigger.ADMIN, "removed")
        await store.remove(row, at=at(0), reason="elsewhere", decision=line)

    world.store = Racing("replace", other)
    await world.given()
    await world.start()
    route = world.route()
    assert await world.app.records.change(route, lambda known: replace(known, data='"late"')) is None
    assert world.app.routing.get("ws") is None
    assert route.workspace.desired is Desired.REMOVED


@simulated
async def test_a_request_that_is_under_way_when_its_workspace_is_removed_is_refused_as_unknown(world: World) -> None:
    await world.given(sign=-1)
    await world.start()
    world.agent().reacts.usual = Reacts(failure=fails().failure, after=5.0)
    calling = asyncio.create_task(world.call())
    await world.until(1)
    await world.app.enrolling.remove(world.route(), request_id=None)
    reply = await calling
    assert (reply.status, await world.waiting()) == (404, [])
