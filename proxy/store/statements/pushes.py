"""Statements about push notifications: their receivers, and how far each was told.

Owns: these texts. Knows nothing of: what the sealed bytes hold, leases beyond the token that proves one.
"""

from typing import Final

from proxy.store.statements import Statement

_ROW: Final = (
    "d.id, p.id, p.protocol, p.sealed, p.through, p.told, p.tries, p.failing_since, p.next_at,"
    " p.lease_owner, p.lease_until"
)
_MINE: Final = "deferral = (SELECT seq FROM deferrals WHERE id = :deferral) AND id = :id"

FIND_DEFERRAL: Final = Statement(
    "find_deferral_of_push",
    "Find a deferral's sequence.",
    "SELECT q.seq FROM deferrals q WHERE q.id = :deferral",
    locks=True,
)
OTHER_PUSHES: Final = Statement(
    "other_pushes",
    "Count a deferral's receivers but one.",
    "SELECT COUNT(*) FROM pushes WHERE deferral = :seq AND id <> :id",
)
PUT_PUSH: Final = Statement(
    "put_push",
    "Add a receiver of notifications, or put another in its place.",
    """
    INSERT INTO pushes (deferral, id, protocol, sealed, through, told, tries, failing_since, next_at)
    VALUES (:seq, :id, :protocol, :sealed, :through, :told, :tries, :failing_since, :next_at)
    ON CONFLICT (deferral, id) DO UPDATE SET protocol = excluded.protocol, sealed = excluded.sealed,
        through = excluded.through, told = excluded.told, tries = excluded.tries,
        failing_since = excluded.failing_since, next_at = excluded.next_at,
        lease_token = NULL, lease_owner = NULL, lease_until = NULL
    """,
)
PUSHES: Final = Statement(
    "pushes",
    "Read a deferral's receivers.",
    f"SELECT {_ROW} FROM deferrals d JOIN pushes p ON p.deferral = d.seq WHERE d.id = :deferral ORDER BY p.id",  # noqa: S608 - names from this file
)
PUSH: Final = Statement(
    "push",
    "Read one receiver.",
    f"SELECT {_ROW} FROM deferrals d JOIN pushes p ON p.deferral = d.seq WHERE d.id = :deferral AND p.id = :id",  # noqa: S608 - names from this file
)
PUSHES_OF_TASK: Final = Statement(
    "pushes_of_task",
    "Read a task's receivers.",
    f"""
    SELECT {_ROW} FROM deferrals d JOIN pushes p ON p.deferral = d.seq
    WHERE d.workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND d.task_id = :task_id
    """,  # noqa: S608 - names from this file
)
TAKE_PUSH: Final = Statement(
    "take_push",
    "Take a receiver away that nobody notifies just now.",
    f"DELETE FROM pushes WHERE {_MINE} AND lease_token IS NULL RETURNING protocol, sealed",  # noqa: S608 - names from this file
)
DROP_PUSH: Final = Statement(
    "drop_push",
    "Forget a receiver.",
    f"DELETE FROM pushes WHERE {_MINE} RETURNING 1",  # noqa: S608 - names from this file
)
RECEIVERS: Final = Statement(
    "receivers",
    "List every receiver of notifications, and what it knows.",
    """
    SELECT d.id, p.id, p.told FROM pushes p CROSS JOIN deferrals d ON d.seq = p.deferral
    ORDER BY p.deferral, p.id
    """,
)
LEASE_PUSH: Final = Statement(
    "lease_push",
    "Take the right to notify a receiver, if nobody has it.",
    f"""
    UPDATE pushes SET lease_token = :lease_token, lease_owner = :lease_owner, lease_until = :lease_until
    WHERE {_MINE} AND (lease_until IS NULL OR lease_until <= :now)
    RETURNING 1
    """,  # noqa: S608 - names from this file
)
TOLD_PUSH: Final = Statement(
    "told_push",
    "Write how far a receiver was told, and give the lease back.",
    f"""
    UPDATE pushes SET through = :through, told = :told, tries = :tries, failing_since = :failing_since,
        next_at = :next_at, lease_token = NULL, lease_owner = NULL, lease_until = NULL
    WHERE {_MINE} AND lease_token = :lease_token
    RETURNING 1
    """,  # noqa: S608 - names from this file
)
RELEASE_PUSHES: Final = Statement(
    "release_pushes",
    "End the leases of a proxy that is gone.",
    """
    UPDATE pushes SET lease_token = NULL, lease_owner = NULL, lease_until = NULL
    WHERE lease_owner = :owner
    RETURNING 1
    """,
)
