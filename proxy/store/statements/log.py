"""Statements about the decision log, and the ping.

Owns: these texts. Knows nothing of: what a decision means.
"""

from typing import Final

from proxy.store.statements import Statement

ADD_DECISION: Final = Statement(
    "add_decision",
    "Append one decision.",
    "INSERT INTO decisions ({decision}) VALUES ({decision_values})",
)
DECISIONS: Final = Statement(
    "decisions",
    "Read the latest decisions about a workspace, newest first.",
    "SELECT id, {decision} FROM decisions WHERE workspace_id = :workspace_id ORDER BY id DESC LIMIT :limit",
)
DECISIONS_SOUGHT: Final = Statement(
    "decisions_sought",
    "Read decisions with a lower id, newest first.",
    """
    SELECT id, {decision} FROM decisions WHERE id < :before AND (:until IS NULL OR at <= :until)
    ORDER BY id DESC LIMIT :limit
    """,
)
DECISIONS_OF: Final = Statement(
    "decisions_of",
    "Read decisions about a workspace with a lower id, newest first.",
    """
    SELECT id, {decision} FROM decisions WHERE workspace_id = :workspace_id AND id < :before
      AND (:until IS NULL OR at <= :until)
    ORDER BY id DESC LIMIT :limit
    """,
)
DECISIONS_OF_REQUEST: Final = Statement(
    "decisions_of_request",
    "Read decisions made for a request, newest first; NULL for workspace, generation or receipt means any.",
    """
    SELECT id, {decision} FROM decisions WHERE request_id = :request_id AND id < :before
      AND (:until IS NULL OR at <= :until)
      AND (:workspace_id IS NULL OR +workspace_id = :workspace_id)
      AND (:generation IS NULL OR +generation = :generation)
      AND (:receipt IS NULL OR +receipt = :receipt)
    ORDER BY id DESC LIMIT :limit
    """,
)
DECISIONS_OF_RECEIPT: Final = Statement(
    "decisions_of_receipt",
    "Read decisions about a deferral, newest first; NULL for workspace or generation means any.",
    """
    SELECT id, {decision} FROM decisions WHERE receipt = :receipt AND id < :before
      AND (:until IS NULL OR at <= :until)
      AND (:workspace_id IS NULL OR +workspace_id = :workspace_id)
      AND (:generation IS NULL OR +generation = :generation)
    ORDER BY id DESC LIMIT :limit
    """,
)
DECISIONS_OF_GENERATION: Final = Statement(
    "decisions_of_generation",
    "Read decisions about a workspace from one restart to the next, newest first.",
    """
    SELECT id, {decision} FROM decisions
    WHERE workspace_id = :workspace_id AND generation = :generation AND id < :before
      AND (:until IS NULL OR at <= :until)
    ORDER BY id DESC LIMIT :limit
    """,
)
NEXT_LOGGED: Final = Statement(
    "next_logged",
    "Find the next workspace, by id, that has decisions.",
    "SELECT workspace_id FROM decisions WHERE workspace_id > :after ORDER BY workspace_id LIMIT 1",
)
FIRST_BEYOND: Final = Statement(
    "first_beyond",
    "Find the newest decision that is beyond the newest so many of a workspace.",
    "SELECT id FROM decisions WHERE workspace_id = :workspace_id ORDER BY id DESC LIMIT 1 OFFSET :rows",
)
TRIM_OLD: Final = Statement(
    "trim_old",
    "Delete decisions older than an instant, the oldest first.",
    """
    DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE at < :before ORDER BY at, id LIMIT :limit)
    RETURNING id
    """,
)
TRIM_BEYOND: Final = Statement(
    "trim_beyond",
    "Delete decisions of a workspace up to an id, the oldest first.",
    """
    DELETE FROM decisions WHERE id IN (
        SELECT id FROM decisions WHERE workspace_id = :workspace_id AND id <= :last ORDER BY id LIMIT :limit
    )
    RETURNING id
    """,
)
PING: Final = Statement(
    "ping",
    "Change one number, so that a commit has something to make durable.",
    "UPDATE pulse SET beats = beats + 1 WHERE number = 1",
)
