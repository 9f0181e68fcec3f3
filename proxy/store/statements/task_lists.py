"""Statements about deferrals as tasks.

Owns: these texts. Knows nothing of: what a task says.
"""

from typing import Final

from proxy.store.statements import Statement

_ENDED: Final = """
    SELECT {brief} FROM deferrals d {named}
    WHERE d.workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND d.caller %s
      AND d.completed_at IS NOT NULL AND d.task_id IS NOT NULL
      AND (d.completed_at, d.seq) < (:completed_at, :seq)
      AND NOT EXISTS (
          SELECT 1 FROM deferrals later
          WHERE later.task_id = d.task_id AND later.workspace = d.workspace AND later.seq > d.seq
      )
    ORDER BY d.completed_at DESC, d.seq DESC LIMIT :limit
    """

DEFERRALS_OF_TASK: Final = Statement(
    "deferrals_of_task",
    "Read the newest deferrals of a task, without bodies.",
    """
    SELECT {brief} FROM deferrals d {named}
    WHERE d.workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND d.task_id = :task_id
    ORDER BY d.seq DESC LIMIT :limit
    """,
)
ALIAS_OF_TASK: Final = Statement(
    "alias_of_task",
    "Read what the agent called a task last.",
    """
    SELECT t.upstream_task_id, t.upstream_context_id FROM deferrals d CROSS JOIN task_aliases t
    WHERE d.workspace = (SELECT number FROM workspaces WHERE id = :workspace_id) AND d.task_id = :task_id
      AND t.deferral = d.seq AND t.upstream_task_id IS NOT NULL
    ORDER BY d.seq DESC LIMIT 1
    """,
)
ENDED_TASKS: Final = Statement(
    "ended_tasks",
    "Read the tasks of a caller that ended last, in one workspace.",
    _ENDED % "= :caller",
)
ENDED_TASKS_OF_NOBODY: Final = Statement(
    "ended_tasks_of_nobody",
    "Read the tasks that ended last of those that no caller owns, in one workspace.",
    _ENDED % "IS NULL",
)
CONTEXTS: Final = Statement(
    "contexts",
    "Read which contexts agents call otherwise than their callers do.",
    """
    SELECT w.id, d.caller, d.context_id, t.upstream_context_id FROM task_aliases t
    CROSS JOIN deferrals d CROSS JOIN workspaces w
    WHERE t.upstream_context_id IS NOT NULL AND d.seq = t.deferral AND d.context_id IS NOT NULL
      AND w.number = d.workspace
    ORDER BY t.deferral
    """,
)
TASK_IDS: Final = Statement(
    "task_ids",
    "Find what callers were given for tasks that an agent names so.",
    """
    SELECT a.column1, t.caller, d.task_id FROM (VALUES (:upstream_task_id, :workspace_id)) AS a
    CROSS JOIN workspaces w CROSS JOIN task_aliases t CROSS JOIN deferrals d
    WHERE w.id = a.column2 AND t.workspace = w.number AND t.upstream_task_id = a.column1 AND d.seq = t.deferral
    """,
)
