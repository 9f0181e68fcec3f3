"""How records look as JSON: workspaces, deferrals, decisions, tokens.

Owns: names and shapes of what is shown; never a request body, a header or a secret.
Knows nothing of: who may see it.
"""

import base64
from datetime import datetime, timedelta
from typing import Any

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, State
from proxy.core.restart import Answer, History, Phase, Restart, Trigger, counted, decide
from proxy.core.times import rfc3339
from proxy.loops.routing import Route
from proxy.store import TokenRecord


def when(at: datetime | None) -> str | None:
    """An instant as RFC 3339, or null."""
    return rfc3339(at) if at is not None else None


def workspace_view(route: Route, now: datetime) -> dict[str, Any]:
    """One workspace."""
    known = route.workspace
    verdict = known.last_verdict
    return {
        "id": known.id,
        "status": known.status.value,
        "desired": known.desired.value,
        "lifecycle": known.lifecycle.value if known.lifecycle else None,
        "delivery_mode": known.delivery_mode.value,
        "url": known.url,
        "runtime": known.runtime_type,
        "parent": known.parent,
        "host": known.settings.host,
        "allow_from": None if known.settings.allow_from is None else list(known.settings.allow_from),
        "incarnation": known.incarnation,
        "generation": known.generation,
        "boot_id": known.boot_id,
        "config_version": known.config_version,
        "last_heartbeat_at": when(route.signs.last_heartbeat_at),
        "last_seen": when(route.signs.last_sign_at),
        "registered_at": when(known.registered_at),
        "started_at": when(known.started_at),
        "ready_at": when(known.ready_at),
        "queue_depth": route.size.rows,
        "in_flight": route.busy,
        "restart": _restart_view(route, now),
        "settle_until": when(_settle_until(route)),
        "last_verdict": {"verdict": verdict.verdict, "rule": verdict.rule, "at": when(verdict.at)} if verdict else None,
    }


def _restart_view(route: Route, now: datetime) -> dict[str, Any]:
    last = route.cycles[-1] if route.cycles else None
    policy = route.effective.restart
    history = History(managed=True, running=route.open_cycle is not None, cycles=route.cycles)
    asked = decide(Trigger.VERDICT, "not_running", history, policy, now)
    return {
        "state": _restart_state(route, last),
        "started_at": when(last.started_at) if last else None,
        "finished_at": when(last.finished_at) if last else None,
        "error": last.error if last else None,
        "count_in_window": len(counted(history, now - timedelta(seconds=policy.window))),
        "next_allowed_at": when(asked.at) if asked.answer in {Answer.DEBOUNCED, Answer.BACKOFF} else None,
    }


def _restart_state(route: Route, last: Restart | None) -> str:
    if last is None:
        return "none"
    return "running" if route.open_cycle is not None else last.phase.value


def _settle_until(route: Route) -> datetime | None:
    known = route.workspace
    begins = [at for at in (known.restart_started_at, known.restart_returned_at, known.announced_at) if at is not None]
    if not begins:
        return None
    return max(begins) + timedelta(seconds=route.effective.policy.settle_window)


def deferral_view(deferral: Deferral) -> dict[str, Any]:
    """One deferral; the agent's answer only once there is one."""
    answer = deferral.answer
    view: dict[str, Any] = {
        "queue_id": deferral.id,
        "workspace_id": deferral.workspace_id,
        "status": deferral.state.value,
        "priority": deferral.priority,
        "attempts": deferral.attempts,
        "redelivery": "maybe" if deferral.maybe else "no",
        "last_error": deferral.last_error,
        "task_id": deferral.task_id,
        "enqueued_at": when(deferral.enqueued_at),
        "leased_at": when(deferral.leased_at),
        "completed_at": when(deferral.completed_at),
        "expires_at": when(deferral.expires_at),
        "response": None,
    }
    if deferral.state is State.COMPLETED and answer is not None:
        view["response"] = {
            "status": answer.status,
            "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers},
            "body_base64": base64.b64encode(answer.body).decode(),
        }
    return view


def decision_view(decision: Decision) -> dict[str, Any]:
    """One line of the decision log."""
    return {
        "id": decision.id,
        "at": when(decision.at),
        "workspace_id": decision.workspace_id,
        "trigger": decision.trigger.value,
        "verdict": decision.verdict or None,
        "rule": decision.rule or None,
        "evidence": dict(decision.evidence),
        "policy": decision.policy or None,
        "action": decision.action,
        "request_id": decision.request_id,
        "receipt": decision.receipt,
        "incarnation": decision.incarnation,
        "generation": decision.generation,
    }


def restart_view(cycle: Restart) -> dict[str, Any]:
    """One restart cycle, by its number."""
    ended, ready = cycle.finished_at, cycle.phase is Phase.FINISHED
    return {
        "workspace_id": cycle.workspace_id,
        "generation": cycle.generation,
        "incarnation": cycle.incarnation,
        "trigger": cycle.trigger.value,
        "reason": cycle.reason,
        "rule": cycle.rule or None,
        "state": cycle.phase.value,
        "error": cycle.error,
        "started_at": when(cycle.started_at),
        "returned_at": when(cycle.returned_at),
        "finished_at": when(ended),
        "ready_after": (ended - cycle.started_at).total_seconds() if ready and ended is not None else None,
    }


def token_view(token: TokenRecord) -> dict[str, Any]:
    """One token; what is shown of the secret is its prefix."""
    return {
        "id": token.id,
        "kind": token.kind,
        "name": token.name,
        "prefix": token.prefix,
        "created_at": when(token.created_at),
    }
