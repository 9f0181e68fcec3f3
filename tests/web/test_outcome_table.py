"""What a failed call's client gets, over real sockets: every class of failure under every verdict.

A cell says in one word what is answered and whether something is stored (`ANSWERS`). Where a dot stands, the settings
change nothing, and the cell is that of the first grid of its kind.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientResponse
from web.compute import UNHURRIED, under
from web.failing_agents import FAILING, LUNCH, answers, breaks_off_a_stream
from web.harness import V1, Harness, send

from proxy.core.evidence import ProbeState

VERDICTS = ("alive", "busy", "dead", "unknown")
CALL = "/workspaces/a/a2a"


# --- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of request; `rpc` says in which shape its errors come."""

    method: str
    path: str
    body: Mapping[str, Any]
    rpc: bool = True

    async def ask(self, proxy: Harness, **headers: str) -> tuple[ClientResponse, bytes]:
        body: dict[str, Any] = {"json": self.body} if self.method == "POST" else {}
        return await proxy.call(self.method, self.path, headers={**V1, **headers}, **body)

    def facts(self, body: bytes) -> dict[str, str]:
        """What stands beside an error, each fact as JSON-RPC says it: a string."""
        said = json.loads(body)
        facts = said["error"]["data"][0]["metadata"] if self.rpc else said
        return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


KINDS = {
    "send": Kind("POST", CALL, send()),
    "stream": Kind("POST", CALL, {**send(), "method": "SendStreamingMessage"}),
    "get": Kind("GET", f"{CALL}/thing", {}, rpc=False),
    "post": Kind("POST", f"{CALL}/hook", {"told": "you"}, rpc=False),
    "GetTask": Kind("POST", CALL, {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "t"}}),
}


# --- what is answered ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """`row`: None where nothing is stored, else whether the row says that the request may have been delivered."""

    status: int
    facts: Mapping[str, str]
    row: bool | None = None


TOLD = {"delivered", "restarting", "restart", "retry_after", "away"}
"""The facts that tell a caller whether a repetition is safe, and when."""
DYING = {"restarting": "true", "restart": "scheduled", "retry_after": "15"}
ANSWERS = {
    "deferred": Answer(202, {}, row=False),
    "marked": Answer(202, {}, row=True),
    "told": Answer(200, {}, row=False),
    "told:marked": Answer(200, {}, row=True),
    "dead:no": Answer(503, {**DYING, "delivered": "no"}),
    "dead:maybe": Answer(503, {**DYING, "delivered": "maybe"}),
    "away:no": Answer(503, {"away": "true", "retry_after": "15", "delivered": "no"}),
    "away:maybe": Answer(503, {"away": "true", "retry_after": "15", "delivered": "maybe"}),
    "failed:no": Answer(502, {"delivered": "no"}),
    "failed:maybe": Answer(502, {"delivered": "maybe"}),
    "lost": Answer(502, {"delivered": "yes"}),
}

GRIDS: dict[tuple[str, str], str] = {
    ("send", ""): """
        not_sent  deferred    deferred    dead:no     deferred
        maybe     marked      marked      dead:maybe  marked
        gateway   passes      marked      dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
    ("send", "dead_action=defer"): """
        not_sent  .           .           deferred    .
        maybe     .           .           marked      .
        gateway   .           .           marked      .
        lost      .           .           lost        .
    """,
    ("send", "unmanaged_away=pass"): """
        not_sent  .           .           .           failed:no
        maybe     .           .           .           marked
        gateway   .           .           .           passes
        lost      .           .           .           lost
    """,
    ("send", "redelivery=always"): """
        not_sent  .           .           .           .
        maybe     marked      marked      dead:maybe  marked
        gateway   .           .           .           .
        lost      .           .           .           .
    """,
    ("send", "redelivery=never"): """
        not_sent  deferred    deferred    dead:no     deferred
        maybe     failed:maybe failed:maybe dead:maybe failed:maybe
        gateway   passes      marked      dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
    ("send", "dead_action=defer redelivery=never"): """
        not_sent  .           .           deferred    .
        maybe     .           .           failed:maybe .
        gateway   .           .           marked      .
        lost      .           .           lost        .
    """,
    ("send", "dead_action=defer redelivery=always"): """
        not_sent  .           .           deferred    .
        maybe     .           .           marked      .
        gateway   .           .           marked      .
        lost      .           .           lost        .
    """,
    ("send", "unmanaged_away=pass redelivery=never"): """
        not_sent  .           .           .           failed:no
        maybe     .           .           .           failed:maybe
        gateway   .           .           .           passes
        lost      .           .           .           lost
    """,
    ("stream", ""): """
        not_sent  told        told        dead:no     told
        maybe     told:marked told:marked dead:maybe  told:marked
        gateway   passes      told:marked dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
    ("stream", "dead_action=defer"): """
        not_sent  .           .           told        .
        maybe     .           .           told:marked .
        gateway   .           .           told:marked .
        lost      .           .           lost        .
    """,
    ("stream", "unmanaged_away=pass"): """
        not_sent  .           .           .           failed:no
        maybe     .           .           .           told:marked
        gateway   .           .           .           passes
        lost      .           .           .           lost
    """,
    ("stream", "dead_action=defer redelivery=never"): """
        not_sent  told        told        told        told
        maybe     failed:maybe failed:maybe failed:maybe failed:maybe
        gateway   passes      told:marked told:marked passes
        lost      lost        lost        lost        lost
    """,
    ("get", ""): """
        not_sent  away:no     away:no     dead:no     away:no
        maybe     away:maybe  away:maybe  dead:maybe  away:maybe
        gateway   passes      away:maybe  dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
    ("get", "dead_action=defer unmanaged_away=pass redelivery=never"): """
        not_sent  away:no     away:no     dead:no     failed:no
        maybe     away:maybe  away:maybe  dead:maybe  away:maybe
        gateway   passes      away:maybe  dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
    ("GetTask", ""): """
        not_sent  away:no     away:no     dead:no     away:no
        maybe     .           .           .           .
        gateway   .           .           .           .
        lost      .           .           .           .
    """,
    ("post", ""): """
        not_sent  deferred    deferred    dead:no     deferred
        maybe     marked      marked      dead:maybe  marked
        gateway   passes      marked      dead:maybe  passes
        lost      lost        lost        lost        lost
    """,
}


@dataclass(frozen=True)
class Cell:
    """A class of failure under a verdict, for a kind of request to a workspace with settings, and what it gets."""

    kind: str
    settings: str
    outcome: str
    verdict: str
    word: str

    @property
    def members(self) -> dict[str, str]:
        """The settings as a PUT says them."""
        return dict(pair.split("=") for pair in self.settings.split())

    def __str__(self) -> str:
        return ", ".join([f"{self.kind} {self.settings}".strip(), self.outcome, self.verdict, self.word])


def cells() -> Iterator[Cell]:
    for (kind, settings), grid in GRIDS.items():
        for line in grid.strip().splitlines():
            outcome, *words = line.split()
            for verdict, word in zip(VERDICTS, words, strict=True):
                if word != ".":
                    yield Cell(kind, settings, outcome, verdict, word)


# --- the table --------------------------------------------------------------------------------------------------------

RULES = {"alive": "running", "busy": "recent_heartbeat", "dead": "not_running", "unknown": "external"}
RESTARTS = {"dead": "scheduled", "unknown": "unmanaged"}


@pytest.mark.parametrize("cell", list(cells()), ids=str)
async def test_a_failed_call_gets(make: Any, listen: Any, nobody: str, cell: Cell) -> None:
    proxy = await make(**UNHURRIED, hold__count=0)  # a stream ends behind its first task
    if cell.outcome == "not_sent":
        url = nobody
    elif cell.outcome == "lost" and cell.kind == "stream":
        url = await listen(breaks_off_a_stream)
    else:
        url = await listen(FAILING[cell.outcome])
    await under(proxy, cell.verdict, url, **cell.members)
    got, body = await KINDS[cell.kind].ask(proxy)
    rows = await proxy.app.store.deferrals(workspace_id="a")
    if cell.word == "passes":
        assert (got.status, got.reason, body, got.headers["X-Mood"]) == (502, "Nope", LUNCH, "tired")
        assert not {"Holdfast-Verdict", "Holdfast-Restart", "Holdfast-Receipt", "Retry-After"} & set(got.headers)
        assert rows == []
        return
    answer = ANSWERS[cell.word]
    assert got.status == answer.status, body
    assert got.headers["Holdfast-Verdict"] == f"{cell.verdict}; rule={RULES[cell.verdict]}"
    assert got.headers.get("Holdfast-Restart") == RESTARTS.get(cell.verdict)
    assert got.headers.get("Retry-After") == answer.facts.get("retry_after")
    if answer.row is None:
        assert rows == []
        assert not {"Holdfast-Receipt", "Location"} & set(got.headers)
        facts = KINDS[cell.kind].facts(body)
        assert {name: fact for name, fact in facts.items() if name in TOLD} == answer.facts
        return
    assert [(row.id, row.maybe) for row in rows] == [(got.headers["Holdfast-Receipt"], answer.row)]
    assert got.headers["Location"] == f"/workspaces/a/queue/{rows[0].id}"
    said = json.loads(body.partition(b"data: ")[2] if cell.kind == "stream" else body)
    if cell.kind == "post":
        assert (said["queued"], said["queue_id"], said["queue_depth"]) == (True, rows[0].id, 1)
    else:
        assert said["result"]["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"


# --- what the grids leave out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 503, 504, 521, 522, 523, 524])
async def test_a_gateways_status_passes_while_the_workspace_lives_and_is_deferred_while_it_is_busy(
    make: Any, listen: Any, status: int
) -> None:
    proxy = await make(**UNHURRIED)
    compute = await under(proxy, "alive", await listen(answers(status)))
    got, body = await KINDS["send"].ask(proxy)
    assert (got.status, body, got.headers["X-Mood"]) == (status, LUNCH, "tired")
    compute.says = ProbeState.NOT_RUNNING
    got, _ = await KINDS["send"].ask(proxy)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "busy; rule=recent_heartbeat")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 501, 505, 520, 525, 530])
async def test_any_other_status_passes_and_nobody_is_asked(make: Any, listen: Any, status: int) -> None:
    proxy = await make()
    compute = await under(proxy, "dead", await listen(answers(status)))
    before = compute.inspected
    got, body = await KINDS["send"].ask(proxy)
    assert (got.status, body, got.headers["X-Mood"]) == (status, LUNCH, "tired")
    assert compute.inspected == before


@pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
async def test_who_prefers_a_deferral_gets_one_where_others_are_rejected(make: Any, nobody: str, prefer: str) -> None:
    proxy = await make(**UNHURRIED)
    await under(proxy, "dead", nobody, dead_action="reject")
    got, _ = await KINDS["send"].ask(proxy, Prefer=prefer)
    assert (got.status, got.headers["Holdfast-Verdict"]) == (202, "dead; rule=not_running")
    assert got.headers["Holdfast-Restart"] == "scheduled"


async def test_a_workspace_that_runs_for_long_and_does_not_listen_is_unreachable(make: Any, nobody: str) -> None:
    proxy = await make(defaults__unmanaged_window=0)
    await under(proxy, "alive", nobody)
    got, body = await KINDS["send"].ask(proxy)
    assert (got.status, got.headers["Retry-After"]) == (503, "15")
    assert json.loads(body)["error"]["data"][0]["reason"] == "WORKSPACE_UNREACHABLE"
    assert KINDS["send"].facts(body)["delivered"] == "no"
    assert await proxy.app.store.deferrals(workspace_id="a") == []


@pytest.mark.parametrize(("away", "word"), [("defer", "deferred"), ("pass", "failed:no")])
async def test_a_death_that_nobody_can_mend_fares_like_one_that_nobody_can_tell(
    make: Any, nobody: str, away: str, word: str
) -> None:
    """Its sidecar says that the agent is down, and no runtime can start it again."""
    proxy = await make(**UNHURRIED)
    token = await proxy.enroll("a", url=nobody, unmanaged_away=away)
    await proxy.call("POST", "/workspaces/a/heartbeat", token=token, json={"agent": "down"})
    for _ in range(2):
        got, body = await KINDS["post"].ask(proxy)
        assert got.status == ANSWERS[word].status, body
        assert got.headers["Holdfast-Verdict"] == "dead; rule=exited"
        assert got.headers["Holdfast-Restart"] == "unmanaged"
