"""Deferrals to statement parameters, rows to deferrals.

Owns: how a deferral's values are stored. Knows nothing of: statements' texts beyond the order of their columns
(`store.statements` has the lists); which rows are read when.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.core.deferral import ACTIVE, Deferral, Lease, RawHeaders, State, StoredAnswer, StoredRequest, StoredTask
from proxy.core.times import from_micros, micros
from proxy.store import QueueSize, Watch
from proxy.store.rows import Row, Value, from_instant, instant

_HEADERS = msgspec.json.Decoder(tuple[tuple[str, str], ...])


def headers_text(headers: RawHeaders) -> str:
    """As JSON pairs; Latin-1 gives every byte one character, so that people can read them and no byte is lost."""
    return msgspec.json.encode([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]).decode()


def _headers(text: str) -> RawHeaders:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in _HEADERS.decode(text))


def task_values(task: StoredTask | None) -> dict[str, Value]:
    """The three columns of a task, NULL where there is none."""
    return {
        "task_json": task.json if task else None,
        "task_version": task.version if task else None,
        "task_state": task.state if task else None,
    }


def lease_values(lease: Lease | None) -> dict[str, Value]:
    """The three columns of a lease, NULL where there is none."""
    return {
        "lease_token": lease.token if lease else None,
        "lease_owner": lease.owner if lease else None,
        "lease_until": micros(lease.until) if lease else None,
    }


def new_row(
    deferral: Deferral, *, seq: int, workspace: int, size: int, head: int, rank: int | None = None
) -> tuple[Value, ...]:
    """Every column of a new deferral, in the order of `{deferral_columns}`; its rank is its priority unless given.

    A tuple, because this is done for every request that is put away: a mapping takes four times as long.
    """
    request, task, lease = deferral.request, deferral.task, deferral.lease
    enqueued_at = micros(deferral.enqueued_at)
    is_due = deferral.next_attempt_at is deferral.enqueued_at
    return (
        seq,
        deferral.id,
        deferral.caller,
        request.method,
        request.tail,
        headers_text(request.headers),
        enqueued_at,
        micros(deferral.expires_at),
        enqueued_at if is_due else micros(deferral.next_attempt_at),
        deferral.state.value,
        deferral.priority,
        deferral.binding,
        deferral.protocol,
        deferral.operation,
        int(deferral.streaming),
        deferral.rpc_id,
        deferral.message_id,
        deferral.context_id,
        deferral.task_id,
        deferral.idempotency_key,
        deferral.digest,
        int(deferral.maybe),
        deferral.attempts,
        deferral.tries,
        instant(deferral.gateway_since),
        int(deferral.adopted),
        lease.token if lease else None,
        lease.owner if lease else None,
        micros(lease.until) if lease else None,
        instant(deferral.leased_at),
        None,  # completed_at
        deferral.last_error,
        deferral.request_id,
        task.json if task else None,
        task.version if task else None,
        task.state if task else None,
        workspace,
        size,
        head,
        deferral.priority if rank is None else rank,
    )


def brief(row: Row) -> Deferral:
    """From `{brief}`: a deferral without body, credentials and answer."""
    return _deferral(iter(row), body=b"", credentials=None, answer=None)


def whole(row: Row) -> Deferral:
    """From `{brief}, {payload}`."""
    *columns, body, credentials, status, headers, answer = row
    return _deferral(
        iter(columns),
        body=b"" if body is None else bytes(body),
        credentials=None if credentials is None else bytes(credentials),
        answer=None if status is None else StoredAnswer(status=status, headers=_headers(headers), body=bytes(answer)),
    )


def _deferral(
    column: Iterator[Any], *, body: bytes, credentials: bytes | None, answer: StoredAnswer | None
) -> Deferral:
    # Keyword arguments are evaluated in the order in which they stand: the order of the columns.
    return Deferral(
        workspace_id=next(column),
        seq=next(column),
        id=next(column),
        caller=next(column),
        request=StoredRequest(method=next(column), tail=next(column), headers=_headers(next(column)), body=body),
        enqueued_at=from_micros(next(column)),
        expires_at=from_micros(next(column)),
        next_attempt_at=from_micros(next(column)),
        state=State(next(column)),
        priority=next(column),
        binding=next(column),
        protocol=next(column),
        operation=next(column),
        streaming=bool(next(column)),
        rpc_id=bytes(next(column)),
        message_id=next(column),
        context_id=next(column),
        task_id=next(column),
        idempotency_key=next(column),
        digest=next(column),
        maybe=bool(next(column)),
        attempts=next(column),
        tries=next(column),
        gateway_since=from_instant(next(column)),
        adopted=bool(next(column)),
        lease=_lease(column),
        leased_at=from_instant(next(column)),
        completed_at=from_instant(next(column)),
        last_error=next(column),
        request_id=next(column),
        task=_task(column),
        upstream_task_id=next(column),
        upstream_context_id=next(column),
        answer=answer,
        credentials=credentials,
    )


def _lease(column: Iterator[Any]) -> Lease | None:
    token, owner, until = next(column), next(column), next(column)
    return None if token is None else Lease(token=token, owner=owner, until=from_micros(until))


def _task(column: Iterator[Any]) -> StoredTask | None:
    json, version, state = next(column), next(column), next(column)
    return None if json is None else StoredTask(json=bytes(json), version=version, state=state)


def watch(row: Row) -> Watch:
    """From `{watch}`."""
    workspace_id, deferral_id, caller, key, context_id, task_id, state, adopted, completed_at, upstream_task_id = row
    return Watch(
        deferral_id=deferral_id,
        workspace_id=workspace_id,
        caller=caller,
        idempotency_key=key,
        context_id=context_id,
        task_id=task_id,
        upstream_task_id=upstream_task_id,
        active=State(state) in ACTIVE,
        adopted=bool(adopted),
        completed_at=from_instant(completed_at),
    )


def size(depth: int, count: int) -> QueueSize:
    """From two counters."""
    return QueueSize(rows=depth, bytes=count)
