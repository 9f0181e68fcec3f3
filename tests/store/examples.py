"""Records that store tests start from; each test names only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.core.decision import Decision, Trigger
from proxy.core.deferral import Deferral, Lease, State, StoredRequest
from proxy.core.workspace import Workspace
from proxy.store import Enqueued, QueueLimits, Store, TokenRecord

T0 = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
NO_LIMITS = QueueLimits(rows=0, bytes=0, idempotency_since=None)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def a_workspace(workspace_id: str = "w", **fields: Any) -> Workspace:
    return Workspace(**{"id": workspace_id, "created_at": T0, **fields})


def a_deferral(deferral_id: str, **fields: Any) -> Deferral:
    """A queued request of 1 + 5 bytes, accepted at T0, due at once, good for an hour."""
    body = fields.pop("body", b"hello")
    known = {
        "id": deferral_id,
        "workspace_id": "w",
        "caller": "client:c",
        "request": StoredRequest(method="POST", tail="/", headers=((b"a", b""),), body=body),
        "enqueued_at": T0,
        "expires_at": at(3600),
        "next_attempt_at": T0,
    }
    return Deferral(**{**known, **fields})


def a_lease(token: str, until: float = 60, owner: str = "proxy-1") -> Lease:
    return Lease(token=token, owner=owner, until=at(until))


def a_leased(deferral_id: str, token: str, **fields: Any) -> Deferral:
    return a_deferral(deferral_id, state=State.LEASED, lease=a_lease(token), leased_at=T0, **fields)


def a_decision(action: str = "defer", **fields: Any) -> Decision:
    return Decision(**{"workspace_id": "w", "at": T0, "trigger": Trigger.FORWARD, "action": action, **fields})


def a_token(token_id: str, name: str = "w", kind: str = "workspace", **fields: Any) -> TokenRecord:
    known = {"id": token_id, "kind": kind, "name": name, "digest": f"sha-{token_id}", "prefix": "hf_abc"}
    return TokenRecord(**{**known, "created_at": T0, **fields})


async def put(store: Store, *deferrals: Deferral) -> list[Enqueued]:
    return [await store.enqueue(deferral, limits=NO_LIMITS) for deferral in deferrals]


async def claim(store: Store, tokens: str, *, workspace: str = "w", now: datetime = T0) -> list[str]:
    """Claim with one lease for each letter; return the ids that were leased, in order."""
    claimed = await store.claim(workspace, leases=[a_lease(token) for token in tokens], now=now)
    return [deferral.id for deferral in claimed]


async def get(store: Store, deferral_id: str) -> Deferral:
    found = await store.deferral(deferral_id)
    assert found is not None
    return found


def without_seq(deferral: Deferral) -> Deferral:
    return replace(deferral, seq=0)
