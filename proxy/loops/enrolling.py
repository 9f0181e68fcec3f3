"""Enrolling workspaces: registration, settings, announcements and removal, written down and then acted upon.

Owns: what a PUT changes, the checks that need the whole workspace, who gets which token.
Knows nothing of: HTTP, JSON, who is allowed to (the doors ask before they come here).
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proxy.clock import Now
from proxy.core.access import AccessRule, closes_circle, listed_caller
from proxy.core.addresses import AddressPolicy, UnsafeUrl, check_url, read_url
from proxy.core.decision import Trigger
from proxy.core.deferral import JournalMode
from proxy.core.errors import CallerError
from proxy.core.lifecycle import Desired, Status
from proxy.core.outcome import DeadAction, Redelivery, UnmanagedAway
from proxy.core.presets import PolicyError
from proxy.core.restart import Trigger as RestartTrigger
from proxy.core.workspace import DeliveryMode, Registration, Workspace, recreate, register
from proxy.loops.changes import tell_changes
from proxy.loops.coordinator import Asked, Coordinator
from proxy.loops.readiness import Readiness
from proxy.loops.records import Records
from proxy.loops.routing import Route, Routing
from proxy.store import Store, TokenRecord
from proxy.telemetry import EventName, Telemetry

DOWN = frozenset({Status.OFFLINE, Status.ABANDONED})
SETTINGS = ("max_concurrent", "profile", "hold_seconds", "host", "probe", "allow_from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """`token` is set for a new workspace, once."""

    route: Route
    created: bool
    token: str | None


class Enrolling:
    """Writes registrations and settings."""

    def __init__(
        self,
        *,
        store: Store,
        records: Records,
        routing: Routing,
        coordinator: Coordinator,
        readiness: Readiness,
        now: Now,
        telemetry: Telemetry,
        addresses: AddressPolicy,
        check_runtime: Callable[[Mapping[str, Any]], list[str]],
        check_probe: Callable[[Mapping[str, Any]], list[str]],
        mint: Callable[[str], tuple[str, TokenRecord]],
        look_up: Callable[[str], Awaitable[str | None]],
        stop_compute: Callable[[Workspace], None],
    ) -> None:
        self._store = store
        self._records = records
        self._routing = routing
        self._coordinator = coordinator
        self._readiness = readiness
        self._now = now
        self._telemetry = telemetry
        self._addresses = addresses
        self._check_runtime = check_runtime
        self._check_probe = check_probe
        self._mint = mint
        self._look_up = look_up
        self._stop_compute = stop_compute
        self.switched: Callable[[Route], Awaitable[None]]
        """Hears that a workspace is reached in another way from now on."""
        self.removed: Callable[[Route], None] = lambda _: None
        """Hears that a workspace is gone."""

    async def put(self, workspace_id: str, said: Mapping[str, Any], *, by_admin: bool) -> Enrolled:
        """Register or change a workspace.

        Raises:
            CallerError: 400 for what cannot be, with every problem named.
        """
        registration = self._registration(said, by_admin=by_admin)
        led_astray = await self._name_problems(said)
        while True:
            route = self._routing.get(workspace_id)
            known = route.workspace if route is not None else None
            now = self._now()
            after = register(known, workspace_id, registration, now)
            self._check(after, said, led_astray)
            if route is None:
                enrolled = await self._create(after) or await self._recreate(workspace_id, registration)
                if enrolled is None:
                    continue
            else:
                line = self._records.decision(after, Trigger.REGISTRATION, "registered")
                if await self._records.write(after, decision=line, route=route) is None:
                    continue
                enrolled = Enrolled(route=route, created=False, token=None)
            break
        route = enrolled.route
        if known is not None:
            tell_changes(self._telemetry, known, route.workspace, "registration")
        if said.get("allow_from") is not None and self._routing.access_rule is AccessRule.ANY:
            unread = "allow_from is kept, but nobody reads it while access.rule is 'any'"
            self._telemetry.emit(
                EventName.CONFIG_WARNING,
                workspace=route.id,
                incarnation=route.workspace.incarnation,
                fields={"warning": unread},
            )
        if not by_admin:
            route.sign(now)
        if known is not None and known.delivery_mode is not route.workspace.delivery_mode:
            await self.switched(route)
        await self._follow_up(route, known, by_admin=by_admin)
        return enrolled

    async def _create(self, workspace: Workspace) -> Enrolled | None:
        token, record = self._mint(workspace.id)
        line = self._records.decision(workspace, Trigger.REGISTRATION, "created")
        created = await self._store.create(workspace, token=record, decision=line)
        if created is None:
            return None
        route = self._routing.put(created)
        self._routing.add_token(record)
        self._telemetry.emit(EventName.WORKSPACE_CREATED, workspace=workspace.id, incarnation=workspace.incarnation)
        return Enrolled(route=route, created=True, token=token)

    async def _recreate(self, workspace_id: str, said: Registration) -> Enrolled | None:
        """The id exists in the store: another proxy was faster (None: look again), or it was removed.

        Only the admin brings a removed workspace back; a late registration never does.
        """
        row = await self._store.workspace(workspace_id)
        if row is None:
            return None
        if row.desired is not Desired.REMOVED:
            self._routing.put(row)
            return None
        if not said.by_admin:
            raise CallerError("WORKSPACE_REMOVED", f"workspace {workspace_id} was removed", status=403)
        token, record = self._mint(workspace_id)
        after = recreate(row, workspace_id, said, self._now())
        line = self._records.decision(after, Trigger.REGISTRATION, "created again")
        saved = await self._store.replace(after, token=record, decision=line)
        if saved is None:
            return None
        self._routing.add_token(record)
        return Enrolled(route=self._routing.put(saved), created=True, token=token)

    async def _follow_up(self, route: Route, before: Workspace | None, *, by_admin: bool) -> None:
        """Act on what was written: start what has a runtime and never ran, look whether it is ready."""
        workspace = route.workspace
        if workspace.parked:
            return
        runs = before is not None and before.generation > 0 and before.status not in DOWN
        if by_admin and workspace.runtime_type != "none" and not runs:
            await self._coordinator.on_demand(route, RestartTrigger.ADMIN, "declared by the admin", request_id=None)
            return
        await self._readiness.settle(route)
        self._readiness.watch(route)

    # Checks

    def _registration(self, said: Mapping[str, Any], *, by_admin: bool) -> Registration:
        settings: dict[str, Any] = {name: said[name] for name in SETTINGS if name in said}
        choices = {
            "dead_action": DeadAction,
            "unmanaged_away": UnmanagedAway,
            "redelivery": Redelivery,
            "journal": JournalMode,
        }
        settings |= {name: choice(said[name]) for name, choice in choices.items() if name in said}
        if "policy" in said:
            settings["policy"] = msgspec.to_builtins(said["policy"])
        mode = said.get("delivery_mode")
        return Registration(
            by_admin=by_admin,
            url=said.get("url"),
            delivery_mode=DeliveryMode(mode) if mode else None,
            boot_id=said.get("boot_id"),
            agent_card=said.get("agent_card"),
            runtime=said.get("runtime"),
            parent=said.get("parent"),
            is_root="parent" in said and said["parent"] is None,
            settings=settings,
        )

    def _check(self, workspace: Workspace, said: Mapping[str, Any], led_astray: Mapping[str, list[str]]) -> None:
        """Refuse what could not work, everything at once, before anything is written.

        `led_astray`: what is wrong with where the names in URLs lead, by the member that holds the URL.
        """
        problems: list[str] = []
        managed = workspace.runtime_type != "none"
        if workspace.delivery_mode is DeliveryMode.PUSH and workspace.url is None and not managed:
            problems.append("a push workspace needs a url")
        if said.get("url") is not None:
            own_child = workspace.runtime_type == "process"
            problems += self.url_problems(str(said["url"]), own_child=own_child) or led_astray["url"]
        if said.get("runtime") is not None:
            problems += self._check_runtime(said["runtime"]) or led_astray["runtime"]
        if said.get("probe") is not None:
            problems += self._check_probe(said["probe"])
        if workspace.parent == workspace.id:
            problems.append("a workspace is not its own parent")
        elif said.get("parent") is not None and closes_circle(workspace.id, said["parent"], self._routing.parent):
            problems.append(f"parent: {said['parent']} is below this workspace")
        problems += _list_problems(said.get("allow_from") or ())
        host = workspace.settings.host
        if host is not None and not self._routing.may_be_named(workspace.id, host):
            problems.append(f"host: {host} is Holdfast's own name, an address, or another workspace's")
        try:
            self._routing.check_policy(workspace)
        except PolicyError as problem:
            problems += problem.problems
        if problems:
            raise CallerError("BAD_WORKSPACE", "; ".join(problems), facts={"problems": problems})

    async def _name_problems(self, said: Mapping[str, Any]) -> dict[str, list[str]]:
        """Which URLs' names lead to a forbidden address already now; the same is checked at each connect."""
        hook = (said.get("runtime") or {}).get("url")
        found: dict[str, list[str]] = {"url": [], "runtime": []}
        for member, name, url in (("url", "url", said.get("url")), ("runtime", "runtime: runtime.url", hook)):
            problem = await self._look_up(url) if isinstance(url, str) else None
            found[member] += [f"{name}: {problem}"] if problem is not None else []
        return found

    def url_problems(self, url: str, *, own_child: bool) -> list[str]:
        """What is wrong with an upstream URL, by the SSRF rules; names are resolved when they are dialled."""
        try:
            read = read_url(url)
            check_url(url, self._addresses, implicit={(read.host, read.port)} if own_child else frozenset())
        except UnsafeUrl as problem:
            return [f"url: {problem}"]
        return []

    # Changes

    async def configure(self, route: Route, said: Mapping[str, Any], *, request_id: str | None) -> tuple[int, Asked]:
        """Merge launch settings, bump their version, restart after the mutation (scenario 56).

        Returns (version, what became of the restart). The write is committed before the restart is asked for, so the
        last cycle sees the last write.
        """

        def merge(known: Workspace) -> Workspace:
            return merged(known, said)

        before = route.workspace
        mode = before.delivery_mode
        after = merge(before)
        self._check(after, _checked_members(after, said), await self._name_problems(said))
        await self._records.change(
            route,
            merge,
            decide=lambda after: self._records.decision(
                after,
                Trigger.CONFIG,
                "configuration written",
                evidence={"version": after.config_version},
                request_id=request_id,
            ),
        )
        tell_changes(self._telemetry, before, route.workspace, "configuration")
        version = route.workspace.config_version
        is_switched = route.workspace.delivery_mode is not mode
        if is_switched:
            await self.switched(route)
        asked = await self._coordinator.on_demand(
            route, RestartTrigger.CONFIG, f"configuration version {version}", request_id=request_id
        )
        if is_switched:
            self._readiness.watch(route)
        return version, asked

    async def remove(self, route: Route, *, request_id: str | None) -> None:
        """Remove a workspace: its deferrals are cancelled with the reason, its tokens die, its compute stops."""
        while True:
            workspace = route.workspace
            line = self._records.decision(workspace, Trigger.ADMIN, "removed", request_id=request_id)
            gone = replace(workspace, desired=Desired.REMOVED)
            if await self._store.remove(gone, at=self._now(), reason="the workspace was removed", decision=line):
                break
            if not await self._records.refresh(route):
                break
        self._routing.drop(route.id)
        self._stop_compute(route.workspace)
        route.workspace = replace(route.workspace, desired=Desired.REMOVED)  # whoever still holds the route sees it
        self._telemetry.emit(EventName.WORKSPACE_DELETED, workspace=route.id, incarnation=route.workspace.incarnation)
        self.removed(route)


def merged(known: Workspace, said: Mapping[str, Any]) -> Workspace:
    """The workspace with a configuration write merged in: `env` member by member (null removes), the rest replaced."""
    runtime = dict(known.runtime or {})
    if "env" in said:
        env = {**runtime.get("env", {}), **said["env"]}
        runtime["env"] = {name: value for name, value in env.items() if value is not None}
    runtime |= {name: said[name] for name in ("command", "cwd") if name in said}
    changed = replace(known, config_version=known.config_version + 1, runtime=runtime or known.runtime)
    if "delivery_mode" in said:
        changed = replace(changed, delivery_mode=DeliveryMode(said["delivery_mode"]))
    if "url" in said:
        changed = register(changed, known.id, Registration(by_admin=True, url=said["url"]), known.created_at)
        changed = replace(changed, registered_at=known.registered_at, status=known.status)
    if "data" in said:
        changed = replace(changed, data=msgspec.json.encode(said["data"]).decode())
    return changed


def _list_problems(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        try:
            listed_caller(entry)
        except ValueError as problem:
            yield f"allow_from: an entry is {problem}, not {entry[:40]!r}"


def _checked_members(after: Workspace, said: Mapping[str, Any]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if "url" in said:
        members["url"] = said["url"]
    if after.runtime is not None:
        members["runtime"] = after.runtime
    return members
