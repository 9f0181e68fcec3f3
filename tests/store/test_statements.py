"""The SQL texts: which index each takes, that the catalogue is complete, that migrations are what they claim."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.core.deferral import ACTIVE, State
from proxy.core.restart import OPEN_PHASES
from proxy.store import StoreFailure, sqlite_schema
from proxy.store.migrations import Applied, Migration, known, missing
from proxy.store.sql import CATALOGUE
from proxy.store.statements import Statement

DOCS = Path(__file__).parents[2] / "docs" / "storage.md"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path_factory.mktemp("plans") / "holdfast.db", isolation_level=None)
    sqlite_schema.prepare_writer(connection)
    sqlite_schema.migrate(connection, known())
    yield connection
    connection.close()


def plan(database: sqlite3.Connection, name: str) -> list[str]:
    statement = CATALOGUE[name]
    return [
        step
        for _, _, _, step in database.execute(f"EXPLAIN QUERY PLAN {statement.marked}", [None] * len(statement.names))
    ]


ENDED_OF_CALLER = (
    "SEARCH d USING INDEX deferrals_tasks_ended (workspace=? AND caller=? AND completed_at>? AND completed_at<?)"
)
COMPLETED_BY_KEY = (
    "SEARCH d USING INDEX deferrals_key_completed (workspace=? AND caller=? AND idempotency_key=? AND completed_at>?)"
)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("claimable", "SEARCH deferrals USING COVERING INDEX deferrals_claim (workspace=? AND state=? AND head=?)"),
        (
            "due",
            "SEARCH d USING COVERING INDEX deferrals_claim (workspace=? AND state=? AND head=?)",
        ),
        (
            "hasten",
            "SEARCH deferrals USING INDEX deferrals_put_off (workspace=? AND state=? AND head=? AND next_attempt_at>?)",
        ),
        (
            "due_at",
            "SEARCH deferrals USING INDEX deferrals_put_off (workspace=? AND state=? AND head=? AND next_attempt_at>?)",
        ),
        ("end", "SEARCH deferrals USING INDEX sqlite_autoindex_deferrals_1 (id=?)"),
        ("lease", "SEARCH deferrals USING INTEGER PRIMARY KEY (rowid=?)"),
        ("list_of", "SEARCH deferrals USING COVERING INDEX deferrals_queue (workspace=? AND state=?)"),
        ("active_of_caller", "SEARCH deferrals USING INDEX deferrals_key (workspace=? AND caller=?)"),
        ("ended_of_caller", "SEARCH deferrals USING INDEX deferrals_ended_of (workspace=? AND caller=?)"),
        ("active_ids", "SEARCH deferrals USING COVERING INDEX deferrals_queue (workspace=? AND state=?)"),
        (
            "known_keys",
            "SEARCH d USING INDEX deferrals_key (workspace=? AND caller=? AND idempotency_key=?)",
        ),
        ("known_keys", COMPLETED_BY_KEY),
        ("take_queues", "SEARCH w USING INDEX sqlite_autoindex_workspaces_1 (id=?)"),
        ("grow_queues", "SEARCH queue_sizes USING INTEGER PRIMARY KEY (rowid=?)"),
        ("heads_of_contexts", "SEARCH d USING INDEX deferrals_context_head (context_id=? AND workspace=?)"),
        ("rows_of_callers", "SEARCH d USING INDEX deferrals_key (workspace=? AND caller=?)"),
        ("leases_of", "SEARCH deferrals USING INDEX deferrals_queue (workspace=? AND state=?)"),
        ("leases_polled", "SEARCH deferrals USING INDEX deferrals_queue (workspace=? AND state=?)"),
        ("journal", "SEARCH j USING INDEX sqlite_autoindex_stream_journal_1 (deferral=? AND sequence>?)"),
        ("leases_over", "SEARCH deferrals USING INDEX deferrals_leases (state=? AND lease_until<?)"),
        ("overdue", "SEARCH deferrals USING COVERING INDEX deferrals_overdue (state=? AND expires_at<?)"),
        ("deferral_of_task", "SEARCH d USING INDEX deferrals_task (task_id=? AND workspace=?)"),
        ("deferrals_of_task", "SEARCH d USING INDEX deferrals_task (task_id=? AND workspace=?)"),
        ("alias_of_task", "SEARCH d USING COVERING INDEX deferrals_task (task_id=? AND workspace=?)"),
        ("ended_tasks", ENDED_OF_CALLER),
        ("ended_tasks_of_nobody", ENDED_OF_CALLER),
        (
            "ended_tasks",
            "SEARCH later USING COVERING INDEX deferrals_task (task_id=? AND workspace=? AND seq>?)",
        ),
        ("task_ids", "SEARCH t USING COVERING INDEX task_aliases_upstream (workspace=? AND upstream_task_id=?)"),
        ("purge", "SEARCH deferrals USING COVERING INDEX deferrals_ended (completed_at<?)"),
        ("decisions", "SEARCH decisions USING INDEX decisions_workspace (workspace_id=?)"),
        ("decisions_sought", "SEARCH decisions USING INTEGER PRIMARY KEY (rowid<?)"),
        ("decisions_of", "SEARCH decisions USING INDEX decisions_workspace (workspace_id=? AND id<?)"),
        ("decisions_of_request", "SEARCH decisions USING INDEX decisions_request (request_id=? AND id<?)"),
        ("decisions_of_receipt", "SEARCH decisions USING INDEX decisions_receipt (receipt=? AND id<?)"),
        (
            "decisions_of_generation",
            "SEARCH decisions USING INDEX decisions_generation (workspace_id=? AND generation=? AND id<?)",
        ),
        ("restart", "SEARCH r USING INDEX sqlite_autoindex_restarts_1 (workspace=? AND generation=?)"),
        ("restarts_of", "SEARCH r USING INDEX sqlite_autoindex_restarts_1 (workspace=? AND generation<?)"),
        ("restarts_newest", "SEARCH n USING INDEX sqlite_autoindex_restarts_1 (workspace=?)"),
        ("old_restarts", "SEARCH r USING COVERING INDEX restarts_started (started_at>? AND started_at<?)"),
        ("trim_restarts", "SEARCH r USING INDEX restarts_started (started_at>? AND started_at<?)"),
        ("trim_old", "SEARCH decisions USING COVERING INDEX decisions_age (at<?)"),
        ("trim_beyond", "SEARCH decisions USING COVERING INDEX decisions_workspace (workspace_id=? AND id<?)"),
        (
            "active_of_key",
            "SEARCH deferrals USING INDEX deferrals_key (workspace=? AND caller=? AND idempotency_key=?)",
        ),
        ("head_of_context", "SEARCH deferrals USING INDEX deferrals_context_head (context_id=? AND workspace=?)"),
        ("top_of_context", "SEARCH deferrals USING INDEX deferrals_context_priority (context_id=? AND workspace=?)"),
        ("next_of_context", "SEARCH deferrals USING INDEX deferrals_context (context_id=? AND workspace=?)"),
        ("nth_of_caller", "SEARCH deferrals USING INDEX deferrals_key (workspace=? AND caller=?)"),
        ("stale_of", "SEARCH deferrals USING COVERING INDEX deferrals_queue (workspace=? AND state=?)"),
        ("stale", "SEARCH d USING COVERING INDEX deferrals_queue (workspace=? AND state=?)"),
        ("watches_completed", "SEARCH d USING INDEX deferrals_ended (completed_at>?)"),
    ],
)
def test_a_statement_of_the_busy_paths_takes_its_index(database, name, step):
    assert step in plan(database, name)


READS_ALL = {
    "contexts": "SCAN t USING INDEX task_aliases_contexts",
    "all_numbers": "SCAN workspaces USING COVERING INDEX sqlite_autoindex_workspaces_1",
    "workspaces": "SCAN w USING INDEX sqlite_autoindex_workspaces_1",
    "signs": "SCAN w USING COVERING INDEX sqlite_autoindex_workspaces_1",
    "tokens": "SCAN tokens",
    "restarts_open": "SCAN r USING INDEX restarts_open",
    "restarts_newest": "SCAN w USING COVERING INDEX sqlite_autoindex_workspaces_1",
    "sizes": "SCAN q USING INDEX queue_sizes_waiting",
    "due": "SCAN q USING INDEX queue_sizes_waiting",
    "stale": "SCAN q USING INDEX queue_sizes_waiting",
    "contradict_down": "SCAN signs USING INDEX signs_down",
    "amend_workspaces": "SCAN workspaces",
    "amend_signs": "SCAN signs",
    "amend_restarts": "SCAN restarts",
    "receivers": "SCAN p USING INDEX sqlite_autoindex_pushes_1",
}
"""What a starting proxy reads whole, and partial indexes that hold only what is asked for."""


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_no_statement_reads_a_whole_table_or_sorts_one_unless_it_is_meant_to(database, name):
    # "a" and the constant rows are what the statement was given, when it asks about several things at once.
    given = {"SCAN CONSTANT ROW", "SCAN a"}
    scans = [step for step in plan(database, name) if step.startswith("SCAN") or "AUTOMATIC" in step]
    scans = [step for step in scans if step not in given]
    assert scans == [READS_ALL[name]] if name in READS_ALL else scans == []
    if name != "tokens":
        assert not [step for step in plan(database, name) if "TEMP B-TREE" in step]


def test_every_statement_is_described_in_the_documents():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    described = {line for line in lines if line.startswith("| `")}
    assert [each.name for each in CATALOGUE.values() if f"| `{each.name}` | {each.about} |" not in described] == []


def test_every_table_is_described_in_the_documents(database):
    text = DOCS.read_text(encoding="utf-8")
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert "deferrals" in tables
    assert [name for name in tables if f"| `{name}` | " not in text and not name.startswith("sqlite_")] == []


def test_no_statement_is_bound_to_one_database():
    for statement in CATALOGUE.values():
        assert not re.search(r"OR (REPLACE|IGNORE)|INDEXED BY|rowid|AUTOINCREMENT|PRAGMA", statement.text), (
            statement.name
        )


def test_a_statement_binds_by_position_what_is_given_by_name():
    statement = Statement("s", "Test.", "SELECT :a, :b_c,\n  :a")
    assert (statement.text, statement.marked) == ("SELECT :a, :b_c, :a", "SELECT ?, ?, ?")
    assert statement.values({"b_c": 2, "a": 1, "more": 3}) == (1, 2, 1)
    with pytest.raises(KeyError):
        statement.values({"a": 1})


def words(database: sqlite3.Connection, table: str, column: str) -> list[set[str]]:
    (text,) = database.execute("SELECT group_concat(sql) FROM sqlite_master WHERE tbl_name = ?", [table]).fetchone()
    return [set(re.findall(r"'(\w+)'", found)) for found in re.findall(rf"{column} IN \(([^)]*)\)", text)]


def test_the_schemas_words_are_the_vocabularies_of_the_records(database):
    assert set(map(frozenset, words(database, "deferrals", "state"))) == {frozenset(State), ACTIVE}
    assert set(map(frozenset, words(database, "restarts", "phase"))) == {OPEN_PHASES}


def test_every_table_checks_the_types_of_its_columns(database):
    loose = database.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 0 AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    assert loose == []


@pytest.mark.parametrize(
    "wrong", ["head = 1, context_id = 'c'", "state = 'leased'", "state = 'completed'", "adopted = 1"]
)
def test_the_schema_refuses_rows_that_no_law_allows(database, wrong):
    database.execute("BEGIN")
    try:
        database.execute(
            """
            INSERT INTO workspaces (number, id, created_at, version, status, desired, delivery_mode, url_source,
                incarnation, bound, generation, config_version, settings, strike_count, restart_pending)
            VALUES (1, 'w', 0, 0, 'ready', 'running', 'push', 'none', 1, 0, 0, 0, '{}', 0, 0)
            """
        )
        for seq, head in ((1, 1), (2, 0)):
            database.execute(
                """
                INSERT INTO deferrals (seq, id, workspace, method, tail, headers, enqueued_at, expires_at,
                    next_attempt_at, state, priority, binding, protocol, operation, streaming, rpc_id, context_id,
                    maybe, attempts, tries, adopted, bytes, head, rank)
                VALUES (?, ?, 1, '', '', '', 0, 0, 0, 'queued', 0, '', '', '', 0, x'', 'c', 0, 0, 0, 0, 0, ?, 0)
                """,
                [seq, str(seq), head],
            )
        with pytest.raises(sqlite3.IntegrityError):
            database.execute(f"UPDATE deferrals SET {wrong} WHERE seq = 2")  # noqa: S608 - this test's own words
    finally:
        database.execute("ROLLBACK")


# Migrations

ONE = Migration(number=1, name="one", text="CREATE TABLE a (n INTEGER);\n-- why; not\nINSERT INTO a VALUES (1);\n")
TWO = Migration(number=2, name="two", text="CREATE TABLE b (n INTEGER)")


def applied(*migrations: Migration) -> list[Applied]:
    return [Applied(number=each.number, name=each.name, sha256=each.sha256) for each in migrations]


def test_a_database_lacks_what_it_has_not_seen():
    assert missing([], [ONE, TWO]) == (ONE, TWO)
    assert missing(applied(ONE), [ONE, TWO]) == (TWO,)
    assert missing(applied(ONE, TWO), [ONE, TWO]) == ()


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (applied(ONE, TWO), "newer"),
        ([Applied(number=1, name="one", sha256="abc")], "changed"),
        (applied(TWO), "changed"),
    ],
)
def test_a_history_that_is_not_ours_is_refused(seen, reason):
    with pytest.raises(StoreFailure) as refused:
        missing(seen, [ONE])
    assert refused.value.reason == reason


def test_a_migration_is_split_into_its_statements():
    assert ONE.statements == ("CREATE TABLE a (n INTEGER)", "INSERT INTO a VALUES (1)")


def test_migrations_are_applied_all_or_none(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    broken = Migration(number=2, name="broken", text="CREATE TABLE b (n INTEGER); CREATE TABLE a (n INTEGER);")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        sqlite_schema.migrate(connection, [ONE, broken])
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    sqlite_schema.migrate(connection, [ONE])
    sqlite_schema.migrate(connection, [ONE, TWO])
    assert connection.execute("SELECT number, name FROM schema_migrations").fetchall() == [(1, "one"), (2, "two")]
    connection.close()


def test_our_migrations_are_numbered_without_a_gap():
    assert [each.number for each in known()] == list(range(1, len(known()) + 1))
    assert known()[0].name == "first"
