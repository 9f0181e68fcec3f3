"""Statements about leases and the ends of deferrals.

Owns: these texts. Knows nothing of: how a deferral came into its queue (`statements.deferrals`).
"""

from typing import Final

from proxy.store.statements import Statement

CLAIMABLE: Final = Statement(
    "claimable",
    "Find the claimable heads of a workspace by rank, then age.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id)
      AND state = 'queued' AND head = 1 AND +next_attempt_at <= :now AND +expires_at > :now
    ORDER BY rank DESC, seq LIMIT :limit
    """,
)
LEASE: Final = Statement(
    "lease",
    "Lease a queued deferral and count the try; return its sequence.",
    """
    UPDATE deferrals SET state = 'leased', tries = tries + 1, leased_at = :now,
        lease_token = :lease_token, lease_owner = :lease_owner, lease_until = :lease_until
    WHERE seq = :seq AND state = 'queued'
    RETURNING seq
    """,
)
EXTEND: Final = Statement(
    "extend",
    "Renew a lease.",
    """
    UPDATE deferrals SET lease_until = :until WHERE id = :id AND state = 'leased' AND lease_token = :lease_token
    RETURNING seq
    """,
)
HELD: Final = Statement(
    "held",
    "Say whether a lease is held under a token.",
    "SELECT seq FROM deferrals WHERE id = :id AND state = 'leased' AND lease_token = :lease_token",
)
LEARN_TASK: Final = Statement(
    "learn_task",
    "Keep what is known of a task while its lease lasts.",
    """
    UPDATE deferrals SET task_json = :task_json, task_version = :task_version, task_state = :task_state
    WHERE id = :id AND state = 'leased' AND lease_token = :lease_token
    RETURNING seq
    """,
)
UPDATE_TASK: Final = Statement(
    "update_task",
    "Keep a later state of a completed deferral's task.",
    """
    UPDATE deferrals SET task_json = :task_json, task_version = :task_version, task_state = :task_state
    WHERE id = :id AND state = 'completed'
    RETURNING seq
    """,
)
RELEASE: Final = Statement(
    "release",
    "Put a leased deferral back; it blocks its context again.",
    """
    UPDATE deferrals SET state = 'queued', adopted = 0, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
        head = CASE WHEN context_id IS NULL THEN 1 ELSE head END,
        next_attempt_at = :next_attempt_at, attempts = :attempts, maybe = :maybe, gateway_since = :gateway_since,
        last_error = COALESCE(:error, last_error)
    WHERE id = :id AND state = 'leased' AND lease_token = :lease_token
    RETURNING workspace, context_id
    """,
)
HASTEN: Final = Statement(
    "hasten",
    "Make the heads of a workspace that came back due now; those that a gateway turned away where it is asked for.",
    """
    UPDATE deferrals SET next_attempt_at = :now
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id)
      AND state = 'queued' AND head = 1 AND next_attempt_at > enqueued_at
      AND next_attempt_at > :now AND (gateway_since IS NULL OR :turned_away = 1)
    """,
)
LEASES_OVER: Final = Statement(
    "leases_over",
    "Find leased deferrals whose lease ran out, the longest over first.",
    "SELECT seq, adopted FROM deferrals WHERE state = 'leased' AND lease_until <= :now ORDER BY lease_until, seq",
)
LEASES_OWNED: Final = Statement(
    "leases_owned",
    "Find what a proxy had leased.",
    "SELECT seq, adopted FROM deferrals WHERE state = 'leased' AND lease_owner = :owner ORDER BY seq",
)
LEASES_POLLED: Final = Statement(
    "leases_polled",
    "Find what lives of a polling workspace hold, one of them excepted.",
    """
    SELECT seq, adopted FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND state = 'leased'
      AND substr(lease_owner, 1, 5) = 'poll:' AND lease_owner <> :but
    ORDER BY seq
    """,
)
TAKE_BACK: Final = Statement(
    "take_back",
    "Put a leased deferral back without its holder's word: nobody knows whether it was sent.",
    """
    UPDATE deferrals SET state = 'queued', adopted = 0, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
        head = CASE WHEN context_id IS NULL THEN 1 ELSE head END,
        next_attempt_at = :now, maybe = 1, attempts = attempts + :counted, last_error = :error
    WHERE seq = :seq AND state = 'leased'
    RETURNING workspace, context_id
    """,
)
END: Final = Statement(
    "end",
    "End a deferral that is leased under a token, or queued (an empty token).",
    """
    UPDATE deferrals SET state = :state, head = 0, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
        completed_at = :at, last_error = COALESCE(:error, last_error),
        maybe = CASE WHEN :maybe = 1 THEN 1 ELSE maybe END, attempts = attempts + :maybe,
        task_json = COALESCE(:task_json, task_json), task_version = COALESCE(:task_version, task_version),
        task_state = COALESCE(:task_state, task_state)
    WHERE id = :id AND state = :source AND COALESCE(lease_token, '') = :lease_token
    RETURNING seq, workspace, context_id, adopted, bytes
    """,
)
DROP_REQUEST: Final = Statement(
    "drop_request",
    "Delete a deferral's body and credentials.",
    "DELETE FROM requests WHERE deferral = :seq",
)
DROP_CREDENTIALS: Final = Statement(
    "drop_credentials",
    "Delete a dead letter's credentials and keep its body.",
    "UPDATE requests SET credentials = NULL WHERE deferral = :seq",
)
ADD_ANSWER: Final = Statement(
    "add_answer",
    "Keep the agent's answer.",
    "INSERT INTO answers (deferral, status, headers, body) VALUES (:seq, :status, :headers, :body)",
)
ACTIVE_IDS: Final = Statement(
    "active_ids",
    "Find the active deferrals of a workspace.",
    """
    SELECT seq FROM deferrals WHERE workspace = :workspace AND state = 'queued'
    UNION ALL
    SELECT seq FROM deferrals WHERE workspace = :workspace AND state = 'leased'
    """,
)
CANCEL: Final = Statement(
    "cancel",
    "Cancel an active deferral, whoever holds its lease.",
    """
    UPDATE deferrals SET state = 'cancelled', head = 0, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
        completed_at = :at, last_error = :reason
    WHERE seq = :seq
    """,
)
EMPTY_QUEUE: Final = Statement(
    "empty_queue",
    "Count a queue as empty.",
    "UPDATE queue_sizes SET depth = 0, bytes = 0 WHERE workspace = :workspace",
)

DEAD_LETTER: Final = Statement(
    "dead_letter",
    "Find a dead letter of a workspace that is not removed.",
    """
    SELECT d.seq, d.workspace, d.caller, d.idempotency_key, d.context_id, d.bytes
    FROM deferrals d JOIN workspaces w ON w.number = d.workspace JOIN queue_sizes q ON q.workspace = d.workspace
    WHERE d.id = :id AND d.state = 'dead_lettered' AND w.desired <> 'removed'
    """,
    locks=True,
)
REDRIVE: Final = Statement(
    "redrive",
    "Queue a dead letter again: its budget begins anew, its place in the order is the old one.",
    """
    UPDATE deferrals SET state = 'queued', adopted = 0, attempts = 0, gateway_since = NULL, completed_at = NULL,
        head = CASE WHEN context_id IS NULL THEN 1 ELSE 0 END, rank = priority,
        next_attempt_at = :now, expires_at = :expires_at,
        task_json = COALESCE(:task_json, task_json), task_version = COALESCE(:task_version, task_version),
        task_state = COALESCE(:task_state, task_state)
    WHERE seq = :seq
    """,
)
DROP_ANSWER: Final = Statement(
    "drop_answer",
    "Delete the answer of a deferral that is queued again.",
    "DELETE FROM answers WHERE deferral = :seq",
)

DUE_AT: Final = Statement(
    "due_at",
    "Find the instant at which the next head of a workspace becomes due.",
    """
    SELECT next_attempt_at FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id)
      AND state = 'queued' AND head = 1 AND next_attempt_at > enqueued_at
      AND next_attempt_at > :now AND expires_at > next_attempt_at
    ORDER BY next_attempt_at LIMIT 1
    """,
)
LEASES_OF: Final = Statement(
    "leases_of",
    "Count the leases of a workspace's queue, and find the end of the one that ends first.",
    """
    SELECT COUNT(*), MIN(lease_until) FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND state = 'leased'
    """,
)
DUE: Final = Statement(
    "due",
    "Find workspaces that have a claimable head.",
    """
    SELECT w.id FROM queue_sizes q JOIN workspaces w ON w.number = q.workspace
    WHERE q.depth > 0 AND EXISTS (
        SELECT 1 FROM deferrals d
        WHERE d.workspace = q.workspace AND d.state = 'queued' AND d.head = 1
          AND +d.next_attempt_at <= :now AND +d.expires_at > :now
    )
    ORDER BY q.workspace LIMIT :limit
    """,
)
OVERDUE: Final = Statement(
    "overdue",
    "Find queued deferrals whose time to live has passed, the longest overdue first.",
    """
    SELECT seq FROM deferrals WHERE state = 'queued' AND expires_at <= :now ORDER BY expires_at, seq LIMIT :limit
    """,
)
STALE: Final = Statement(
    "stale",
    "Find queued deferrals accepted before an instant, by workspace, the oldest first.",
    """
    SELECT d.seq FROM queue_sizes q CROSS JOIN deferrals d
    WHERE q.depth > 0 AND d.workspace = q.workspace AND d.state = 'queued' AND d.enqueued_at < :before
    ORDER BY q.workspace, d.seq LIMIT :limit
    """,
)
STALE_OF: Final = Statement(
    "stale_of",
    "Find queued deferrals of one workspace accepted before an instant, the oldest first.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id)
      AND state = 'queued' AND enqueued_at < :before
    ORDER BY seq LIMIT :limit
    """,
)
PURGE: Final = Statement(
    "purge",
    "Delete deferrals that ended before an instant, with body, answer, alias and journal.",
    """
    DELETE FROM deferrals WHERE seq IN (
        SELECT seq FROM deferrals WHERE completed_at < :before ORDER BY completed_at, seq LIMIT :limit
    )
    RETURNING seq
    """,
)
