"""A workspace as a value: what is known of it, and the pure functions that derive its next value.

Owns: the record, registration, boot_id and incarnation rules, what a beat or a finished restart makes of the record.
Knows nothing of: storage, the runtime that hosts it, how a verdict is reached.

Theory of operation. A record is never changed in place. A function takes the record and what happened, and returns the
next record; the shell writes it by compare-and-set on `version`. Whoever loses that race reads again and decides again.
The *incarnation* counts lives: a verdict, a restart or a lease that names an older incarnation changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from proxy.core.deferral import JournalMode
from proxy.core.lifecycle import PARKED, RESTING, Cause, Desired, Lifecycle, Status, may_move, may_want, move
from proxy.core.liveness import Strikes
from proxy.core.outcome import DeadAction, Redelivery, UnmanagedAway

MOST_PAST_BOOTS = 16
"""Boot_ids of earlier lives that are remembered."""


class DeliveryMode(StrEnum):
    """How requests reach a workspace: Holdfast dials it, or it polls."""

    PUSH = "push"
    POLL = "poll"


class UrlSource(StrEnum):
    """Who said the URL: a configured one survives restarts, an announced one is cleared by them."""

    NONE = "none"
    CONFIGURED = "configured"
    ANNOUNCED = "announced"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastVerdict:
    """The verdict that was reached last, for people to look at."""

    verdict: str
    rule: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an admin may set per workspace; None means the configured default.

    `host` is a host name of its own, in lower case. `allow_from` is the list of those who may call it, as the admin
    wrote it (`core.access`).
    """

    max_concurrent: int | None = None
    dead_action: DeadAction | None = None
    unmanaged_away: UnmanagedAway | None = None
    redelivery: Redelivery | None = None
    profile: str | None = None
    hold_seconds: float | None = None
    host: str | None = None
    journal: JournalMode | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] | None = None
    allow_from: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Everything durable about one workspace.

    `runtime` is the launch section as the admin wrote it (`type` names the runtime; None means `none`). `generation`
    counts restarts. `bound` says that this incarnation's boot_id is known: the first foreign boot_id of an incarnation
    that Holdfast itself started is bound, any later one is a new life. `exited_at` is an unasked exit of this very
    incarnation; `announced_at` opened the settle window without a restart of ours, once per incarnation.
    `restart_pending`: an admin or a configuration write asked for one more cycle while one was running.
    `past_boots` are boot_ids of lives before this one, the latest last: who shows one of them is no new life.
    `version` is the compare-and-set counter of the row.
    """

    id: str
    created_at: datetime
    version: int = 0
    status: Status = Status.STARTING
    desired: Desired = Desired.RUNNING
    lifecycle: Lifecycle | None = None
    delivery_mode: DeliveryMode = DeliveryMode.PUSH
    url: str | None = None
    url_source: UrlSource = UrlSource.NONE
    agent_card: Mapping[str, Any] | None = None
    incarnation: int = 1
    boot_id: str | None = None
    bound: bool = False
    generation: int = 0
    owner: str | None = None
    parent: str | None = None
    runtime: Mapping[str, Any] | None = None
    data: str | None = None
    config_version: int = 0
    settings: Settings = field(default_factory=Settings)
    registered_at: datetime | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    exited_at: datetime | None = None
    announced_at: datetime | None = None
    restart_started_at: datetime | None = None
    restart_returned_at: datetime | None = None
    stopped_at: datetime | None = None
    restart_pending: bool = False
    abandoned_at: datetime | None = None
    offline_rule: str | None = None
    strikes: Strikes = field(default_factory=Strikes)
    last_verdict: LastVerdict | None = None
    past_boots: tuple[str, ...] = ()

    @property
    def parked(self) -> bool:
        """Administration keeps it from running."""
        return self.desired in PARKED

    @property
    def resting(self) -> bool:
        """Its compute is to be stopped, and to be started again one day."""
        return self.desired in RESTING

    @property
    def runtime_type(self) -> str:
        """The name of the runtime that hosts it."""
        return str(self.runtime.get("type", "none")) if self.runtime else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a PUT says; None means "not said". `by_admin` decides whose URL it is; `is_root` takes the parent away."""

    by_admin: bool
    url: str | None = None
    delivery_mode: DeliveryMode | None = None
    boot_id: str | None = None
    agent_card: Mapping[str, Any] | None = None
    runtime: Mapping[str, Any] | None = None
    parent: str | None = None
    is_root: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def register(known: Workspace | None, workspace_id: str, said: Registration, now: datetime) -> Workspace:
    """Return the workspace after a registration.

    A registration by the workspace itself is a sign of life and makes it ready when it says where it listens. One by an
    admin describes a workspace that may not run yet: it only leaves it `starting`, until the probe answers.
    """
    base = known or Workspace(id=workspace_id, created_at=now, started_at=now)
    updated = replace(
        base,
        registered_at=now,
        delivery_mode=said.delivery_mode or base.delivery_mode,
        agent_card=said.agent_card if said.agent_card is not None else base.agent_card,
        runtime=said.runtime if said.runtime is not None else base.runtime,
        parent=said.parent if said.parent is not None or said.is_root else base.parent,
        settings=replace(base.settings, **said.settings),
    )
    if said.url is not None:
        # An agent that repeats the configured URL does not make it its own: it must survive the next restart.
        repeats = base.url_source is UrlSource.CONFIGURED and base.url == said.url
        source = UrlSource.CONFIGURED if said.by_admin or repeats else UrlSource.ANNOUNCED
        updated = replace(updated, url=said.url, url_source=source)
    if said.boot_id is not None:
        # Who registers under a name that was used before says so on purpose; a beat or a claim under it is a leftover.
        others = tuple(name for name in updated.past_boots if name != said.boot_id)
        updated = meet_boot(replace(updated, past_boots=others), said.boot_id, now)
    if said.by_admin:
        # An admin's word revives a workspace that nobody hosts, but says nothing about whether it listens.
        if updated.status in {Status.OFFLINE, Status.ABANDONED} and updated.runtime_type == "none":
            status = move(updated.status, Status.STARTING, Cause.ADMIN)
            return replace(updated, status=status, abandoned_at=None, offline_rule=None)
        return updated
    return become_ready(updated, Cause.REGISTRATION, now) if _reachable(updated) else updated


def recreate(gone: Workspace, workspace_id: str, said: Registration, now: datetime) -> Workspace:
    """Return a removed workspace's next life: nothing of the old one but its numbers, so that the past stays fenced."""
    fresh = register(None, workspace_id, said, now)
    return replace(fresh, version=gone.version, incarnation=gone.incarnation + 1, generation=gone.generation)


def _reachable(workspace: Workspace) -> bool:
    return workspace.url is not None or workspace.delivery_mode is DeliveryMode.POLL


def of_old_life(workspace: Workspace, boot_id: str) -> bool:
    """Say whether a boot_id is that of an earlier life; also while the one after a restart has not shown its own."""
    before_restart = boot_id == workspace.boot_id and not workspace.bound and workspace.generation > 0
    return before_restart or boot_id in workspace.past_boots


def _past_boots(workspace: Workspace, boot_id: str) -> tuple[str, ...]:
    """The boot_ids of the past once `boot_id` is that of the present."""
    last = workspace.boot_id
    if last is None or last == boot_id:
        return workspace.past_boots
    return (*workspace.past_boots, last)[-MOST_PAST_BOOTS:]


def meet_boot(workspace: Workspace, boot_id: str, now: datetime) -> Workspace:
    """Take note of the boot_id that a workspace shows: the known one, the first of this incarnation, or a new life.

    Nobody of ours starts an abandoned workspace: who shows up there was started by hand, and is a new life.
    """
    if of_old_life(workspace, boot_id):
        return workspace
    past = _past_boots(workspace, boot_id)
    if boot_id == workspace.boot_id or (not workspace.bound and workspace.status is not Status.ABANDONED):
        return replace(workspace, boot_id=boot_id, bound=True, past_boots=past)
    return replace(
        new_life(workspace, now),
        boot_id=boot_id,
        bound=True,
        past_boots=past,
        status=move(workspace.status, Status.STARTING, Cause.NEW_BOOT)
        if may_move(workspace.status, Status.STARTING, Cause.NEW_BOOT)
        else workspace.status,
    )


def new_life(workspace: Workspace, now: datetime) -> Workspace:
    """Bump the incarnation; nothing that was evidence against the old life counts against the new one."""
    return replace(
        workspace,
        incarnation=workspace.incarnation + 1,
        bound=False,
        started_at=now,
        ready_at=None,
        exited_at=None,
        announced_at=None,
        strikes=Strikes(),
        offline_rule=None,
        abandoned_at=None,
    )


def become_ready(workspace: Workspace, cause: Cause, now: datetime) -> Workspace:
    """Return the workspace as ready, by way of `starting` where the edges ask for it; unchanged where they forbid it.

    An incarnation whose exit was seen stays dead whatever answers in its place: only a new life is ready again.
    """
    status = workspace.status
    if status is Status.READY or workspace.exited_at is not None:
        return workspace
    for step in (Status.READY, Status.STARTING):
        if may_move(status, step, cause):
            status = step
            break
    if status is Status.STARTING and may_move(status, Status.READY, cause):
        status = Status.READY
    if status is workspace.status:
        return workspace
    ready = status is Status.READY
    return replace(
        workspace,
        status=status,
        ready_at=now if ready else workspace.ready_at,
        offline_rule=None,
        abandoned_at=None,
        strikes=Strikes() if ready else workspace.strikes,
    )


def begin_restart(workspace: Workspace, now: datetime, owner: str) -> Workspace:
    """Return the workspace as it is recorded before the runtime is called: next incarnation, next generation."""
    life = new_life(workspace, now)
    announced = workspace.url_source is UrlSource.ANNOUNCED
    return replace(
        life,
        status=move(workspace.status, Status.RESTARTING, Cause.COORDINATOR),
        generation=workspace.generation + 1,
        owner=owner,
        restart_started_at=now,
        restart_returned_at=None,
        stopped_at=None,
        restart_pending=False,
        url=None if announced else workspace.url,
        url_source=UrlSource.NONE if announced else workspace.url_source,
    )


def runtime_returned(workspace: Workspace, now: datetime) -> Workspace:
    """Return the workspace after the runtime's start call came back: it boots now."""
    if workspace.status is not Status.RESTARTING:
        return replace(workspace, restart_returned_at=now)
    return replace(
        workspace,
        status=move(workspace.status, Status.STARTING, Cause.COORDINATOR),
        restart_returned_at=now,
        started_at=now,
    )


def go_offline(workspace: Workspace, cause: Cause, rule: str) -> Workspace | None:
    """Return the workspace as offline, or None where its status may not go there for that cause."""
    if workspace.status is Status.OFFLINE:
        return None
    if not may_move(workspace.status, Status.OFFLINE, cause):
        return None
    announced = workspace.url_source is UrlSource.ANNOUNCED
    return replace(
        workspace,
        status=Status.OFFLINE,
        offline_rule=rule,
        strikes=Strikes(),
        url=None if announced else workspace.url,
        url_source=UrlSource.NONE if announced else workspace.url_source,
    )


def park(workspace: Workspace, desired: Desired) -> Workspace | None:
    """Return the workspace as paused or hibernated; None where that is no change, or no way (see `DESIRED_EDGES`).

    `stopped_at` stays unknown until its compute was stopped: a proxy that dies in between finds what is left to do.
    """
    if workspace.desired is desired or not may_want(workspace.desired, desired):
        return None
    stopped_at = workspace.stopped_at if workspace.resting else None
    return replace(workspace, desired=desired, stopped_at=stopped_at, restart_pending=False)


def unpark(workspace: Workspace) -> Workspace:
    """Return the workspace as wanted again; what was stopped is started by whoever writes this."""
    return replace(workspace, desired=Desired.RUNNING, stopped_at=None)


def rest(workspace: Workspace, now: datetime) -> Workspace | None:
    """Return a parked workspace whose compute was stopped: away, and not because it died; None where it is not parked.

    A workspace that was given up stays so: only its next start says otherwise.
    """
    if not workspace.resting:
        return None
    announced = workspace.url_source is UrlSource.ANNOUNCED
    away = may_move(workspace.status, Status.OFFLINE, Cause.ADMIN)
    return replace(
        workspace,
        status=Status.OFFLINE if away else workspace.status,
        stopped_at=now,
        offline_rule=None,
        strikes=Strikes(),
        url=None if announced else workspace.url,
        url_source=UrlSource.NONE if announced else workspace.url_source,
    )
