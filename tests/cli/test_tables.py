"""Tables and lists of facts, drawn as they stand below: on terminals of several widths, in a pipe, in colour."""

from cli.commandline import pipe, terminal

from proxy.cli.tables import Cell, Column, Screen, coloured, text
from proxy.cli.workspaces import listed, shown

COLUMNS = (
    Column("ID"),
    Column("STATUS"),
    Column("TRIES", right=True),
    Column("ERROR", least=8),
    Column("X", spare=True),
)
ROWS = [
    [text("3f9c2a51"), coloured("dead_lettered"), text(5), text("connection reset by peer in mid-call"), text("a")],
    [text("b"), coloured("queued"), text(10), text(None), text("bb")],
]


def drawn(screen: Screen) -> str:
    return "\n".join(screen.table(COLUMNS, ROWS))


def test_a_table_is_aligned() -> None:
    assert drawn(terminal(80)) == (
        "ID        STATUS         TRIES  ERROR                                 X\n"
        "3f9c2a51  dead_lettered      5  connection reset by peer in mid-call  a\n"
        "b         queued            10  -                                     bb"
    )


def test_a_narrow_terminal_cuts_what_may_be_cut() -> None:
    assert drawn(terminal(50)) == (
        "ID        STATUS         TRIES  ERROR           X\n"
        "3f9c2a51  dead_lettered      5  connection re…  a\n"
        "b         queued            10  -               bb"
    )


def test_a_narrower_one_leaves_spare_columns_out_and_keeps_ids_whole() -> None:
    assert drawn(terminal(41)) == (
        "ID        STATUS         TRIES  ERROR\n"
        "3f9c2a51  dead_lettered      5  connecti…\n"
        "b         queued            10  -"
    )
    assert "3f9c2a51  dead_lettered      5  connect…" in drawn(terminal(10))


def test_nothing_is_cut_in_a_pipe() -> None:
    columns = (Column("ID"), Column("ERROR", least=4))
    rows = [[text("i" * 128), text("e" * 500)]]
    assert pipe().table(columns, rows)[1] == f"{'i' * 128}  {'e' * 500}"


def test_wide_characters_do_not_push_a_column() -> None:
    lines = terminal().table((Column("NAME"), Column("N")), [[text("大大"), text(1)], [text("abc"), text(2)]])
    assert lines == ["NAME  N", "大大  1", "abc   2"]


def test_colours_do_not_change_the_alignment() -> None:
    plain = drawn(terminal(50))
    painted = "\n".join(terminal(50, colours=True).table(COLUMNS, ROWS))
    assert "\x1b[31mdead_lettered\x1b[0m" in painted
    assert "\x1b[36mqueued\x1b[0m       " in painted
    for code in ("\x1b[31m", "\x1b[36m", "\x1b[2m", "\x1b[0m"):
        painted = painted.replace(code, "")
    assert painted == plain


def test_an_agents_words_are_shown_without_their_escapes() -> None:
    assert text("\x1b[31mready").text == "\\x1b[31mready"
    assert coloured("\x1b[31mready") == Cell("\\x1b[31mready")


def test_facts_stand_below_each_other() -> None:
    lines = terminal().facts(
        [("url", text("http://x")), ("last sign", [coloured("busy"), text("by rule settling")])], "  "
    )
    assert lines == ["  url        http://x", "  last sign  busy by rule settling"]


# --- workspaces -------------------------------------------------------------------------------------------------------

READY = {
    "id": "agent-7",
    "status": "ready",
    "desired": "running",
    "lifecycle": None,
    "delivery_mode": "push",
    "url": "http://127.0.0.1:9000",
    "runtime": "process",
    "parent": None,
    "incarnation": 3,
    "generation": 2,
    "boot_id": "b-1",
    "config_version": 0,
    "last_heartbeat_at": "2026-01-31T11:59:48.000000Z",
    "last_seen": "2026-01-31T11:59:48.000000Z",
    "registered_at": "2026-01-31T10:00:00.000000Z",
    "started_at": "2026-01-31T11:58:00.000000Z",
    "ready_at": "2026-01-31T11:58:01.000000Z",
    "queue_depth": 12,
    "in_flight": 1,
    "restart": {
        "state": "finished",
        "started_at": "2026-01-31T11:57:59.000000Z",
        "finished_at": "2026-01-31T11:58:01.000000Z",
        "error": None,
        "count_in_window": 1,
        "next_allowed_at": None,
    },
    "settle_until": None,
    "last_verdict": {"verdict": "busy", "rule": "recent_heartbeat", "at": "2026-01-31T11:50:00.000000Z"},
}
NEW = {
    **READY,
    "id": "b",
    "status": "offline",
    "desired": "paused",
    "last_seen": None,
    "last_verdict": None,
    "restart": {**READY["restart"], "state": "none", "started_at": None},
}


def test_workspaces_are_listed_by_id_with_their_distance_in_time() -> None:
    assert "\n".join(listed(terminal(), [NEW, READY])) == (
        "ID       STATUS  MODE  LIFE  OPEN  QUEUE  LAST SEEN  VERDICT\n"
        "agent-7  ready   push     3     1     12  12 s ago   busy recent_heartbeat\n"
        "b        paused  push     3     1     12  -          -"
    )


def test_in_a_pipe_their_times_are_those_of_the_api() -> None:
    assert "\n".join(listed(pipe(), [READY])) == (
        "ID       STATUS  MODE  LIFE  OPEN  QUEUE  LAST SEEN                    VERDICT\n"
        "agent-7  ready   push     3     1     12  2026-01-31T11:59:48.000000Z  busy recent_heartbeat"
    )


def test_one_workspace_is_shown_with_what_is_known_of_it() -> None:
    assert "\n".join(shown(terminal(), READY)) == (
        "agent-7 ready\n"
        "  url               http://127.0.0.1:9000\n"
        "  delivery          push\n"
        "  runtime           process\n"
        "  life              incarnation 3, generation 2, boot b-1\n"
        "  work              1 open, 12 in the queue\n"
        "  registered        2 h ago  (2026-01-31 10:00:00 UTC)\n"
        "  started           2 min ago  (2026-01-31 11:58:00 UTC)\n"
        "  ready             119 s ago  (2026-01-31 11:58:01 UTC)\n"
        "  heartbeat         12 s ago  (2026-01-31 11:59:48 UTC)\n"
        "  sign of life      12 s ago  (2026-01-31 11:59:48 UTC)\n"
        "  last restart      finished began 2 min ago  (2026-01-31 11:57:59 UTC)\n"
        "  counted restarts  1\n"
        "  last verdict      busy by rule recent_heartbeat, 10 min ago  (2026-01-31 11:50:00 UTC)"
    )
    assert next(iter(shown(terminal(), NEW))) == "b offline wanted: paused"
