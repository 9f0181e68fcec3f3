"""Statements about the stream journal: the events of a deferred stream while its try goes on, and after its end.

Owns: these texts. Knows nothing of: what an event says, leases beyond the token that proves one.
"""

from typing import Final

from proxy.store.statements import Statement

JOURNAL_END: Final = Statement(
    "journal_end",
    "Find the first number and the last event of a deferral's journal, and the tries of the deferral now.",
    """
    SELECT d.seq, d.tries, j.tries, j.sequence, j.through,
        (SELECT MIN(e.sequence) FROM stream_journal e WHERE e.deferral = d.seq)
    FROM deferrals d
    LEFT JOIN stream_journal j ON j.deferral = d.seq
        AND j.sequence = (SELECT MAX(e.sequence) FROM stream_journal e WHERE e.deferral = d.seq)
    WHERE d.id = :id
    """,
)
FORGET_TRIES: Final = Statement(
    "forget_tries",
    "Delete the events of a deferral's earlier tries.",
    "DELETE FROM stream_journal WHERE deferral = :seq AND tries <> :tries",
)
ADOPT_EVENTS: Final = Statement(
    "adopt_events",
    "Count the events of a deferral's earlier tries as told by a later one that goes on with them.",
    "UPDATE stream_journal SET tries = :tries WHERE deferral = :seq AND tries <> :tries",
)
ADD_EVENT: Final = Statement(
    "add_event",
    "Append an event to a deferral's journal.",
    """
    INSERT INTO stream_journal (deferral, sequence, event, at, tries, through)
    VALUES (:seq, :sequence, :event, :at, :tries, :through)
    """,
)
JOURNAL: Final = Statement(
    "journal",
    "Read events of a deferral's journal, in order, after one of them.",
    """
    SELECT j.sequence, j.event, j.at FROM stream_journal j
    WHERE j.deferral = (SELECT seq FROM deferrals WHERE id = :id) AND j.sequence > :after
    ORDER BY j.sequence LIMIT :limit
    """,
)
