"""Statements about putting requests away, reading them, and the order of a queue.

Owns: these texts. Knows nothing of: leases and ends (`statements.delivery`).
"""

from typing import Final

from proxy.store.statements import Statement

# Reading

DEFERRAL: Final = Statement(
    "deferral",
    "Read one deferral with its body, credentials and answer, by id.",
    "SELECT {brief}, {payload} FROM deferrals d {named} {loaded} WHERE d.id = :id",
)
BRIEF: Final = Statement(
    "brief",
    "Read one deferral without its body, by id.",
    "SELECT {brief} FROM deferrals d {named} WHERE d.id = :id",
)
DEFERRAL_AT: Final = Statement(
    "deferral_at",
    "Read one deferral with its body, credentials and answer, by sequence.",
    "SELECT {brief}, {payload} FROM deferrals d {named} {loaded} WHERE d.seq = :seq",
)
DEFERRAL_OF_TASK: Final = Statement(
    "deferral_of_task",
    "Read the latest deferral with that provisional task id.",
    """
    SELECT {brief}, {payload} FROM deferrals d {named} {loaded}
    WHERE d.workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND d.task_id = :task_id
    ORDER BY d.seq DESC LIMIT 1
    """,
)
BRIEF_AT: Final = Statement(
    "brief_at",
    "Read one deferral without its body, by sequence.",
    "SELECT {brief} FROM deferrals d {named} WHERE d.seq = :seq",
)
WATCH_AT: Final = Statement(
    "watch_at",
    "Read what the routing table needs of one deferral.",
    "SELECT {watch} FROM deferrals d {named} WHERE d.seq = :seq",
)
WATCHES_ACTIVE: Final = Statement(
    "watches_active",
    "Read what the routing table needs of all active deferrals.",
    "SELECT {watch} FROM deferrals d {named} WHERE d.state IN ('queued', 'leased') ORDER BY d.state, d.seq",
)
WATCHES_COMPLETED: Final = Statement(
    "watches_completed",
    "Read what the routing table needs of deferrals completed later than an instant.",
    """
    SELECT {watch} FROM deferrals d {named} WHERE d.completed_at > :since AND +d.state = 'completed'
    ORDER BY d.completed_at, d.seq
    """,
)
SIZES: Final = Statement(
    "sizes",
    "Read the sizes of all queues that are not empty.",
    """
    SELECT w.id, q.depth, q.bytes FROM queue_sizes q JOIN workspaces w ON w.number = q.workspace WHERE q.depth > 0
    """,
)
LIST: Final = Statement(
    "list",
    "Find the newest deferrals of one state, of all workspaces.",
    "SELECT seq FROM deferrals WHERE state = :state ORDER BY seq DESC LIMIT :limit",
)
LIST_OF: Final = Statement(
    "list_of",
    "Find the newest deferrals of one state, of one workspace.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND state = :state
    ORDER BY seq DESC LIMIT :limit
    """,
)
ACTIVE_OF_CALLER: Final = Statement(
    "active_of_caller",
    "Find all deferrals of one active state, of one caller in one workspace: the queue's limit bounds them.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND caller = :caller
      AND state IN ('queued', 'leased') AND +state = :state
    """,
)
ENDED_OF_CALLER: Final = Statement(
    "ended_of_caller",
    "Find the newest deferrals of one state that is an end, of one caller in one workspace.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND caller = :caller
      AND completed_at IS NOT NULL AND +state = :state
    ORDER BY seq DESC LIMIT :limit
    """,
)

# Putting away

TAKE_QUEUE: Final = Statement(
    "take_queue",
    "Read the queue of a workspace that is not removed.",
    """
    SELECT q.workspace, q.depth, q.bytes FROM workspaces w JOIN queue_sizes q ON q.workspace = w.number
    WHERE w.id = :workspace_id AND w.desired <> 'removed'
    """,
    locks=True,
)
TAKE_QUEUES: Final = Statement(
    "take_queues",
    "Read the queues of several workspaces that are not removed.",
    """
    SELECT w.id, q.workspace, q.depth, q.bytes FROM (VALUES (:workspace_id)) AS a
    CROSS JOIN workspaces w CROSS JOIN queue_sizes q
    WHERE w.id = a.column1 AND w.desired <> 'removed' AND q.workspace = w.number
    """,
    locks=True,
)
GROW_QUEUE: Final = Statement(
    "grow_queue",
    "Count active rows and bytes in or, negative, out.",
    "UPDATE queue_sizes SET depth = depth + :rows, bytes = bytes + :bytes WHERE workspace = :workspace",
)
GROW_QUEUES: Final = Statement(
    "grow_queues",
    "Count active rows and bytes into several queues.",
    """
    UPDATE queue_sizes SET depth = depth + a.column2, bytes = bytes + a.column3
    FROM (VALUES (:workspace, :rows, :bytes)) AS a WHERE workspace = a.column1
    """,
)
KNOWN_KEYS: Final = Statement(
    "known_keys",
    "Find which of several idempotency keys are active, or were completed later than an instant.",
    """
    SELECT a.column1 FROM (VALUES (:place, :workspace_id, :caller, :idempotency_key, :since)) AS a
    CROSS JOIN workspaces w
    WHERE w.id = a.column2 AND (
        EXISTS (
            SELECT 1 FROM deferrals d
            WHERE d.workspace = w.number AND d.caller = a.column3 AND d.idempotency_key = a.column4
              AND d.state IN ('queued', 'leased')
        ) OR EXISTS (
            SELECT 1 FROM deferrals d
            WHERE d.workspace = w.number AND d.caller = a.column3 AND d.idempotency_key = a.column4
              AND d.state = 'completed' AND d.completed_at > a.column5
        )
    )
    """,
)
ACTIVE_OF_KEY: Final = Statement(
    "active_of_key",
    "Find the active deferral of an idempotency key.",
    """
    SELECT seq, digest, state, expires_at FROM deferrals
    WHERE workspace = :workspace AND caller = :caller AND idempotency_key = :idempotency_key
      AND state IN ('queued', 'leased')
    """,
)
COMPLETED_OF_KEY: Final = Statement(
    "completed_of_key",
    "Find the latest deferral of an idempotency key that was completed later than an instant.",
    """
    SELECT seq, digest FROM deferrals
    WHERE workspace = :workspace AND caller = :caller AND idempotency_key = :idempotency_key
      AND state = 'completed' AND completed_at > :since
    ORDER BY completed_at DESC, seq DESC LIMIT 1
    """,
)
NTH_OF_CALLER: Final = Statement(
    "nth_of_caller",
    "Say whether a queue has more active deferrals of one caller than that.",
    """
    SELECT seq FROM deferrals
    WHERE workspace = :workspace AND caller = :caller AND state IN ('queued', 'leased') LIMIT 1 OFFSET :skipped
    """,
)
ROWS_OF_CALLERS: Final = Statement(
    "rows_of_callers",
    "Count what several callers have active in queues.",
    """
    SELECT a.column1, a.column2, (
        SELECT COUNT(*) FROM deferrals d
        WHERE d.workspace = a.column1 AND d.caller = a.column2 AND d.state IN ('queued', 'leased')
    ) FROM (VALUES (:workspace, :caller)) AS a
    """,
)
RESERVE: Final = Statement(
    "reserve",
    "Give out the next sequences of deferrals; return the last of them.",
    "UPDATE sequences SET last = last + :count WHERE name = 'deferrals' RETURNING last",
)
ADD_DEFERRAL: Final = Statement(
    "add_deferral",
    "Insert a deferral under its sequence.",
    "INSERT INTO deferrals ({deferral_columns}) VALUES ({deferral_values})",
)
ADD_REQUEST: Final = Statement(
    "add_request",
    "Insert a deferral's body and sealed credentials.",
    "INSERT INTO requests (deferral, body, credentials) VALUES (:seq, :body, :credentials)",
)
SET_ALIAS: Final = Statement(
    "set_alias",
    "Note the agent's own ids; NULL keeps what is stored.",
    """
    INSERT INTO task_aliases (deferral, workspace, caller, upstream_task_id, upstream_context_id)
    SELECT seq, workspace, caller, :upstream_task_id, :upstream_context_id FROM deferrals WHERE seq = :seq
    ON CONFLICT (deferral) DO UPDATE SET
        upstream_task_id = COALESCE(excluded.upstream_task_id, task_aliases.upstream_task_id),
        upstream_context_id = COALESCE(excluded.upstream_context_id, task_aliases.upstream_context_id)
    """,
)

# The order of a context. Its head is in one index, all that waits behind the head in two others.

HEAD_OF_CONTEXT: Final = Statement(
    "head_of_context",
    "Find the head of a context and its rank.",
    """
    SELECT seq, rank, state, priority FROM deferrals
    WHERE workspace = :workspace AND context_id = :context_id AND head = 1 AND context_id IS NOT NULL
    """,
)
HEADS_OF_CONTEXTS: Final = Statement(
    "heads_of_contexts",
    "Find the heads of several contexts and their ranks.",
    """
    SELECT a.column1, a.column2, d.seq, d.rank FROM (VALUES (:workspace, :context_id)) AS a CROSS JOIN deferrals d
    WHERE d.workspace = a.column1 AND d.context_id = a.column2 AND d.head = 1 AND d.context_id IS NOT NULL
    """,
)
NEXT_OF_CONTEXT: Final = Statement(
    "next_of_context",
    "Find the first deferral that waits behind the head of a context; one that is leased goes before all queued ones.",
    """
    SELECT seq, state FROM deferrals
    WHERE workspace = :workspace AND context_id = :context_id
      AND completed_at IS NULL AND head = 0 AND adopted = 0 AND context_id IS NOT NULL
    ORDER BY state, seq LIMIT 1
    """,
)
TOP_OF_CONTEXT: Final = Statement(
    "top_of_context",
    "Find the highest priority that waits behind the head of a context.",
    """
    SELECT priority FROM deferrals
    WHERE workspace = :workspace AND context_id = :context_id
      AND completed_at IS NULL AND head = 0 AND adopted = 0 AND context_id IS NOT NULL
    ORDER BY priority DESC LIMIT 1
    """,
)
DEMOTE: Final = Statement(
    "demote",
    "Take the flag from a head.",
    "UPDATE deferrals SET head = 0 WHERE seq = :seq",
)
PROMOTE: Final = Statement(
    "promote",
    "Make a deferral the head of its context, with the context's rank.",
    "UPDATE deferrals SET head = 1, rank = :rank WHERE seq = :seq",
)
