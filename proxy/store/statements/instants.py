"""Statements that move back what a clock wrote down that was ahead.

Owns: these texts. Knows nothing of: when that happens.
"""

from typing import Final

from proxy.store.statements import Statement


def _back(table: str, columns: tuple[str, ...]) -> str:
    """Set each of the columns to `:now` where it is later."""
    moved = ", ".join(f"{column} = CASE WHEN {column} > :now THEN :now ELSE {column} END" for column in columns)
    return f"UPDATE {table} SET {moved} WHERE {' OR '.join(f'{column} > :now' for column in columns)} RETURNING 1"  # noqa: S608 - names from this file


AMEND_WORKSPACES: Final = Statement(
    "amend_workspaces",
    "Move what happened to workspaces later than now back to now.",
    _back(
        "workspaces",
        (
            "created_at",
            "registered_at",
            "started_at",
            "ready_at",
            "exited_at",
            "announced_at",
            "restart_started_at",
            "restart_returned_at",
            "stopped_at",
            "abandoned_at",
            "first_strike_at",
            "last_verdict_at",
        ),
    ),
)
AMEND_SIGNS: Final = Statement(
    "amend_signs",
    "Move signs of life that came later than now back to now.",
    _back("signs", ("last_sign_at", "last_heartbeat_at", "agent_down_at")),
)
AMEND_RESTARTS: Final = Statement(
    "amend_restarts",
    "Move what happened in restarts later than now back to now.",
    _back("restarts", ("started_at", "returned_at", "finished_at")),
)
AMEND_TRIES: Final = Statement(
    "amend_tries",
    "Make queued deferrals due now whose next try is further away than any wait.",
    """
    UPDATE deferrals SET next_attempt_at = :now,
        gateway_since = CASE WHEN gateway_since > :now THEN :now ELSE gateway_since END
    WHERE state = 'queued' AND next_attempt_at > :latest
    RETURNING 1
    """,
)
