"""Statements about workspaces, their signs of life, restarts and tokens.

Owns: these texts. Knows nothing of: the order in which a unit of work uses them.
"""

from typing import Final

from proxy.store.statements import Statement

WORKSPACE: Final = Statement(
    "workspace",
    "Read one workspace by its id.",
    "SELECT {workspace} FROM workspaces w WHERE w.id = :id",
)
WORKSPACES: Final = Statement(
    "workspaces",
    "Read all workspaces, removed ones too, by id.",
    "SELECT {workspace} FROM workspaces w ORDER BY w.id",
)
ADD_WORKSPACE: Final = Statement(
    "add_workspace",
    "Insert a workspace, or nothing when its id is taken; return its number.",
    """
    INSERT INTO workspaces ({workspace_columns}) VALUES ({workspace_values})
    ON CONFLICT (id) DO NOTHING
    RETURNING number
    """,
)
ADD_QUEUE: Final = Statement(
    "add_queue",
    "Give a new workspace its empty queue.",
    "INSERT INTO queue_sizes (workspace, depth, bytes) VALUES (:workspace, 0, 0)",
)
REPLACE_WORKSPACE: Final = Statement(
    "replace_workspace",
    "Compare-and-set on the version and, where asked, on the last sign of life; return the workspace's number.",
    """
    UPDATE workspaces SET version = version + 1, {workspace_set}
    WHERE id = :id AND version = :version
      AND NOT EXISTS (
          SELECT 1 FROM signs WHERE signs.workspace = workspaces.number AND signs.last_sign_at > :no_sign_after
      )
    RETURNING number
    """,
)

SIGNS: Final = Statement(
    "signs",
    "Read the signs of life of all workspaces.",
    "SELECT {signs} FROM signs s JOIN workspaces w ON w.number = s.workspace",
)
ALL_NUMBERS: Final = Statement(
    "all_numbers",
    "Read the numbers of all workspaces.",
    "SELECT id, number FROM workspaces",
)
NUMBERS: Final = Statement(
    "numbers",
    "Find the numbers of several workspaces.",
    "SELECT w.id, w.number FROM (VALUES (:id)) AS a CROSS JOIN workspaces w WHERE w.id = a.column1",
)
MERGE_SIGNS: Final = Statement(
    "merge_signs",
    "Merge signs of life into a workspace's row: instants move forward only, NULL keeps what is stored.",
    """
    INSERT INTO signs (workspace, last_sign_at, last_heartbeat_at, agent_down_at, active_tasks, max_concurrent,
                       progress)
    VALUES (:workspace, :last_sign_at, :last_heartbeat_at, :agent_down_at, :active_tasks, :max_concurrent, :progress)
    ON CONFLICT (workspace) DO UPDATE SET
        last_sign_at = CASE
            WHEN excluded.last_sign_at IS NULL OR signs.last_sign_at > excluded.last_sign_at THEN signs.last_sign_at
            ELSE excluded.last_sign_at END,
        last_heartbeat_at = CASE
            WHEN excluded.last_heartbeat_at IS NULL OR signs.last_heartbeat_at > excluded.last_heartbeat_at
            THEN signs.last_heartbeat_at ELSE excluded.last_heartbeat_at END,
        agent_down_at = CASE
            WHEN excluded.agent_down_at IS NULL OR signs.agent_down_at > excluded.agent_down_at
            THEN signs.agent_down_at ELSE excluded.agent_down_at END,
        active_tasks = COALESCE(excluded.active_tasks, signs.active_tasks),
        max_concurrent = COALESCE(excluded.max_concurrent, signs.max_concurrent),
        progress = COALESCE(excluded.progress, signs.progress)
    """,
)
MERGE_INSTANTS: Final = Statement(
    "merge_instants",
    "Merge two instants into a workspace's signs of life, at half the price: they are all that most beats change.",
    """
    INSERT INTO signs (workspace, last_sign_at, last_heartbeat_at)
    VALUES (:workspace, :last_sign_at, :last_heartbeat_at)
    ON CONFLICT (workspace) DO UPDATE SET
        last_sign_at = CASE
            WHEN excluded.last_sign_at IS NULL OR signs.last_sign_at > excluded.last_sign_at THEN signs.last_sign_at
            ELSE excluded.last_sign_at END,
        last_heartbeat_at = CASE
            WHEN excluded.last_heartbeat_at IS NULL OR signs.last_heartbeat_at > excluded.last_heartbeat_at
            THEN signs.last_heartbeat_at ELSE excluded.last_heartbeat_at END
    """,
)
CONTRADICT_DOWN: Final = Statement(
    "contradict_down",
    "Forget that an agent was said to be down where a later sign of life says otherwise.",
    "UPDATE signs SET agent_down_at = NULL WHERE agent_down_at IS NOT NULL AND last_sign_at > agent_down_at",
)

ADD_RESTART: Final = Statement(
    "add_restart",
    "Record a restart before the runtime is called.",
    "INSERT INTO restarts (workspace, {restart_columns}) VALUES (:workspace, {restart_values})",
)
KEEP_RESTART: Final = Statement(
    "keep_restart",
    "Update an open restart whose lease is the caller's.",
    """
    UPDATE restarts SET {restart_set}
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND generation = :generation
      AND phase IN ('recorded', 'stopped', 'started') AND lease_owner = :held_by
    RETURNING generation
    """,
)
TAKE_RESTART: Final = Statement(
    "take_restart",
    "Take over an open restart whose lease ran out, or that never had one.",
    """
    UPDATE restarts SET {restart_set}
    WHERE workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND generation = :generation
      AND phase IN ('recorded', 'stopped', 'started') AND (lease_until IS NULL OR lease_until <= :now)
    RETURNING generation
    """,
)
RESTART: Final = Statement(
    "restart",
    "Read one restart of a workspace.",
    """
    SELECT {restart} FROM restarts r JOIN workspaces w ON w.number = r.workspace
    WHERE w.id = :workspace_id AND r.generation = :generation
    """,
)
RESTARTS_OF: Final = Statement(
    "restarts_of",
    "Read the restarts of a workspace with a lower generation, newest first.",
    """
    SELECT {restart} FROM restarts r JOIN workspaces w ON w.number = r.workspace
    WHERE w.id = :workspace_id AND r.generation < :before ORDER BY r.generation DESC LIMIT :limit
    """,
)
RESTARTS_OPEN: Final = Statement(
    "restarts_open",
    "Read every restart that has not ended.",
    """
    SELECT {restart} FROM restarts r JOIN workspaces w ON w.number = r.workspace
    WHERE r.phase IN ('recorded', 'stopped', 'started')
    """,
)
RESTARTS_SINCE: Final = Statement(
    "restarts_since",
    "Read every restart that started later than an instant.",
    """
    SELECT {restart} FROM restarts r JOIN workspaces w ON w.number = r.workspace
    WHERE r.started_at > :since
    """,
)
RESTARTS_NEWEST: Final = Statement(
    "restarts_newest",
    "Read the newest restart of every workspace, and the newest that no agent announced.",
    """
    SELECT {restart} FROM workspaces w CROSS JOIN restarts r ON r.workspace = w.number
    WHERE r.generation IN (
        (SELECT n.generation FROM restarts n WHERE n.workspace = w.number ORDER BY n.generation DESC LIMIT 1),
        (SELECT n.generation FROM restarts n WHERE n.workspace = w.number AND n.asked_by <> 'announced'
         ORDER BY n.generation DESC LIMIT 1)
    )
    """,
)
OLD_RESTARTS: Final = Statement(
    "old_restarts",
    "Find where a page of restarts ends that started between two instants, the oldest first.",
    """
    SELECT MAX(a.started_at), COUNT(*) FROM (
        SELECT r.started_at FROM restarts r
        WHERE r.started_at >= :after AND r.started_at < :before ORDER BY r.started_at LIMIT :limit
    ) AS a
    """,
)
TRIM_RESTARTS: Final = Statement(
    "trim_restarts",
    "Delete ended restarts that started between two instants; the newest ones of a workspace stay.",
    """
    DELETE FROM restarts WHERE (workspace, generation) IN (
        SELECT r.workspace, r.generation FROM restarts r
        WHERE r.started_at >= :after AND r.started_at <= :last AND r.phase NOT IN ('recorded', 'stopped', 'started')
          AND r.generation NOT IN (
            (SELECT n.generation FROM restarts n WHERE n.workspace = r.workspace ORDER BY n.generation DESC LIMIT 1),
            (SELECT n.generation FROM restarts n WHERE n.workspace = r.workspace AND n.asked_by <> 'announced'
             ORDER BY n.generation DESC LIMIT 1)
          )
    )
    """,
)

TOKENS: Final = Statement(
    "tokens",
    "Read all tokens' digests, oldest first.",
    "SELECT {token} FROM tokens ORDER BY created_at, id",
)
ADD_TOKEN: Final = Statement(
    "add_token",
    "Insert a token's digest.",
    "INSERT INTO tokens ({token}) VALUES ({token_values})",
)
DROP_TOKEN: Final = Statement(
    "drop_token",
    "Delete a token and return what was deleted.",
    "DELETE FROM tokens WHERE id = :id RETURNING {token}",
)
RETIRE_TOKENS: Final = Statement(
    "retire_tokens",
    "Delete the tokens that earlier lives of a workspace got at their start; a token of no life stays.",
    "DELETE FROM tokens WHERE kind = :kind AND name = :name AND incarnation < :incarnation",
)
DROP_TOKENS: Final = Statement(
    "drop_tokens",
    "Delete all tokens of one owner.",
    "DELETE FROM tokens WHERE kind = :kind AND name = :name",
)
