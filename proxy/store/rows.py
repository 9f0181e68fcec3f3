"""Records to statement parameters, rows to records: workspaces, signs, restarts, tokens, decisions.

Owns: how their values are stored: instants as microseconds, yes and no as 1 and 0, mappings as JSON text.
Knows nothing of: statements' texts beyond the order of their columns (`store.statements` has the lists); deferrals
(`store.deferral_rows`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from proxy.core import decision as log
from proxy.core import restart as cycles
from proxy.core.decision import Decision
from proxy.core.lifecycle import Desired, Lifecycle, Status
from proxy.core.liveness import Strikes
from proxy.core.restart import Restart
from proxy.core.times import from_micros, micros
from proxy.core.workspace import DeliveryMode, LastVerdict, Settings, UrlSource, Workspace
from proxy.store import Signs, TokenRecord

Value = str | int | bytes | None
Row = Sequence[Any]

T = TypeVar("T")

_SETTINGS = msgspec.json.Decoder(Settings)


def instant(at: datetime | None) -> int | None:
    """Microseconds since the epoch."""
    return None if at is None else micros(at)


def from_instant(value: int | None) -> datetime | None:
    """The inverse of `instant`."""
    return None if value is None else from_micros(value)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored as JSON")


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value, enc_hook=_plain).decode()


def _from_json(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _word(kind: Callable[[str], T], text: str | None) -> T | None:
    return None if text is None else kind(text)


def workspace_values(workspace: Workspace) -> dict[str, Value]:
    """Every column of a workspace; `version` is the record's own."""
    verdict = workspace.last_verdict
    return {
        "id": workspace.id,
        "created_at": micros(workspace.created_at),
        "version": workspace.version,
        "status": workspace.status.value,
        "desired": workspace.desired.value,
        "lifecycle": workspace.lifecycle.value if workspace.lifecycle else None,
        "delivery_mode": workspace.delivery_mode.value,
        "url": workspace.url,
        "url_source": workspace.url_source.value,
        "agent_card": _json(workspace.agent_card),
        "incarnation": workspace.incarnation,
        "boot_id": workspace.boot_id,
        "bound": int(workspace.bound),
        "generation": workspace.generation,
        "owner": workspace.owner,
        "parent": workspace.parent,
        "runtime": _json(workspace.runtime),
        "data": workspace.data,
        "config_version": workspace.config_version,
        "settings": _json(workspace.settings),
        "registered_at": instant(workspace.registered_at),
        "started_at": instant(workspace.started_at),
        "ready_at": instant(workspace.ready_at),
        "exited_at": instant(workspace.exited_at),
        "announced_at": instant(workspace.announced_at),
        "restart_started_at": instant(workspace.restart_started_at),
        "restart_returned_at": instant(workspace.restart_returned_at),
        "stopped_at": instant(workspace.stopped_at),
        "restart_pending": int(workspace.restart_pending),
        "abandoned_at": instant(workspace.abandoned_at),
        "offline_rule": workspace.offline_rule,
        "strike_count": workspace.strikes.count,
        "first_strike_at": instant(workspace.strikes.first_at),
        "last_verdict": verdict.verdict if verdict else None,
        "last_verdict_rule": verdict.rule if verdict else None,
        "last_verdict_at": instant(verdict.at) if verdict else None,
        "past_boots": _json(workspace.past_boots or None),
    }


def workspace(row: Row) -> Workspace:
    """From `{workspace}`."""
    column = iter(row)
    return Workspace(
        id=next(column),
        created_at=from_micros(next(column)),
        version=next(column),
        status=Status(next(column)),
        desired=Desired(next(column)),
        lifecycle=_word(Lifecycle, next(column)),
        delivery_mode=DeliveryMode(next(column)),
        url=next(column),
        url_source=UrlSource(next(column)),
        agent_card=_from_json(next(column)),
        incarnation=next(column),
        boot_id=next(column),
        bound=bool(next(column)),
        generation=next(column),
        owner=next(column),
        parent=next(column),
        runtime=_from_json(next(column)),
        data=next(column),
        config_version=next(column),
        settings=_SETTINGS.decode(next(column)),
        registered_at=from_instant(next(column)),
        started_at=from_instant(next(column)),
        ready_at=from_instant(next(column)),
        exited_at=from_instant(next(column)),
        announced_at=from_instant(next(column)),
        restart_started_at=from_instant(next(column)),
        restart_returned_at=from_instant(next(column)),
        stopped_at=from_instant(next(column)),
        restart_pending=bool(next(column)),
        abandoned_at=from_instant(next(column)),
        offline_rule=next(column),
        strikes=Strikes(count=next(column), first_at=from_instant(next(column))),
        last_verdict=_last_verdict(column),
        past_boots=tuple(_from_json(next(column)) or ()),
    )


def _last_verdict(column: Iterator[Any]) -> LastVerdict | None:
    verdict, rule, at = next(column), next(column), next(column)
    return None if at is None else LastVerdict(verdict=verdict, rule=rule, at=from_micros(at))


def signs_row(number: int, signs: Signs) -> tuple[Value, ...]:
    """What is to be merged into one workspace's signs of life, in the order of the statement: thousands at once."""
    sign, heartbeat = signs.last_sign_at, signs.last_heartbeat_at
    signed_at = instant(sign)
    return (
        number,
        signed_at,
        signed_at if heartbeat is sign else instant(heartbeat),
        instant(signs.agent_down_at),
        signs.active_tasks,
        signs.max_concurrent,
        signs.progress,
    )


def instants_row(number: int, signs: Signs) -> tuple[Value, ...]:
    """The instants of one workspace's signs of life, in the order of the statement."""
    sign, heartbeat = signs.last_sign_at, signs.last_heartbeat_at
    signed_at = instant(sign)
    return (number, signed_at, signed_at if heartbeat is sign else instant(heartbeat))


def signs(row: Row) -> tuple[str, Signs]:
    """From `{signs}`: the workspace's id and its signs."""
    workspace_id, sign, heartbeat, down, active_tasks, max_concurrent, progress = row
    return workspace_id, Signs(
        last_sign_at=from_instant(sign),
        last_heartbeat_at=from_instant(heartbeat),
        agent_down_at=from_instant(down),
        active_tasks=active_tasks,
        max_concurrent=max_concurrent,
        progress=progress,
    )


def restart_values(restart: Restart) -> dict[str, Value]:
    """Every column of a restart, and the id of its workspace."""
    return {
        "workspace_id": restart.workspace_id,
        "generation": restart.generation,
        "incarnation": restart.incarnation,
        "asked_by": restart.trigger.value,
        "reason": restart.reason,
        "rule": restart.rule,
        "phase": restart.phase.value,
        "started_at": micros(restart.started_at),
        "returned_at": instant(restart.returned_at),
        "finished_at": instant(restart.finished_at),
        "error": restart.error,
        "lease_owner": restart.lease_owner,
        "lease_until": instant(restart.lease_until),
    }


def restart(row: Row) -> Restart:
    """From `{restart}`."""
    column = iter(row)
    return Restart(
        workspace_id=next(column),
        generation=next(column),
        incarnation=next(column),
        trigger=cycles.Trigger(next(column)),
        reason=next(column),
        rule=next(column),
        phase=cycles.Phase(next(column)),
        started_at=from_micros(next(column)),
        returned_at=from_instant(next(column)),
        finished_at=from_instant(next(column)),
        error=next(column),
        lease_owner=next(column),
        lease_until=from_instant(next(column)),
    )


def token_values(token: TokenRecord) -> dict[str, Value]:
    """Every column of a token."""
    return {
        "id": token.id,
        "kind": token.kind,
        "name": token.name,
        "digest": token.digest,
        "prefix": token.prefix,
        "created_at": micros(token.created_at),
        "incarnation": token.incarnation,
    }


def token(row: Row) -> TokenRecord:
    """From `{token}`."""
    token_id, kind, name, digest, prefix, created_at, incarnation = row
    return TokenRecord(
        id=token_id,
        kind=kind,
        name=name,
        digest=digest,
        prefix=prefix,
        created_at=from_micros(created_at),
        incarnation=incarnation,
    )


def decision_values(decision: Decision) -> dict[str, Value]:
    """Every column of a decision."""
    return {
        "workspace_id": decision.workspace_id,
        "at": micros(decision.at),
        "made_by": decision.trigger.value,
        "action": decision.action,
        "verdict": decision.verdict,
        "rule": decision.rule,
        "policy": decision.policy,
        "evidence": _json(decision.evidence),
        "request_id": decision.request_id,
        "receipt": decision.receipt,
        "incarnation": decision.incarnation,
        "generation": decision.generation,
    }


def decision(row: Row) -> Decision:
    """From the id and `{decision}`."""
    column = iter(row)
    return Decision(
        id=next(column),
        workspace_id=next(column),
        at=from_micros(next(column)),
        trigger=log.Trigger(next(column)),
        action=next(column),
        verdict=next(column),
        rule=next(column),
        policy=next(column),
        evidence=_from_json(next(column)),
        request_id=next(column),
        receipt=next(column),
        incarnation=next(column),
        generation=next(column),
    )
