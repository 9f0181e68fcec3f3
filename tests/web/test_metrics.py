"""The metrics: what they say after a story, what form they have, and that the page says the same."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from web.harness import Harness, ScriptedAgent

from proxy.web import calls, server

Make = Callable[..., Awaitable[Harness]]
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in plain(text)}
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"holdfast_{name}", *sorted(labels.items())))


async def scrape(proxy: Harness) -> Scraped:
    got, body = await proxy.call("GET", "/metrics")
    assert got.status == 200
    assert got.headers["Content-Type"].startswith("text/plain; version=")
    return Scraped(body.decode())


async def test_requests_are_counted_by_how_they_ended(proxy: Harness, agent: ScriptedAgent, nobody: str) -> None:
    client = await proxy.client()
    await proxy.enroll("a", url=agent.url)
    await proxy.enroll("away", url=nobody, unmanaged_away="defer")
    await proxy.enroll("gone", url=nobody, unmanaged_away="pass")
    for number in range(3):
        await proxy.send("a", client, message_id=f"m{number}")
    await proxy.send("away", client)
    await proxy.send("gone", client)
    await proxy.call("POST", "/workspaces/a/a2a", token=None)
    await proxy.call("POST", "/workspaces/made-up/a2a", token=client)
    found = await scrape(proxy)
    assert found("requests_total", workspace="a", outcome="answered", code="2xx") == 3
    assert found("requests_total", workspace="a", outcome="refused", code="4xx") == 1
    assert found("requests_total", workspace="away", outcome="deferred", code="2xx") == 1
    assert found("requests_total", workspace="gone", outcome="failed", code="5xx") == 1
    assert found("requests_total", workspace="_none", outcome="refused", code="4xx") == 1
    assert found("request_seconds_count") == 7
    assert found("request_added_seconds_count") == 3
    assert found("upstream_failures_total", **{"class": "not_sent"}) == 2
    assert found("queue_depth", workspace="away") == 1
    assert (found("queue_bytes", workspace="away") or 0) > 100
    assert found("deferrals_total", transition="queued") == 1
    verdicts = [value for (name, *_), value in found.samples.items() if name == "holdfast_verdicts_total"]
    assert sum(verdicts) == len(proxy.named("verdict")) > 0
    assert found("events_total", event="deferral.queued") == 1


async def test_what_the_agent_takes_is_not_what_holdfast_adds(
    proxy: Harness, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [0.0]

    def watch() -> float:
        shown[0] += 0.001
        return shown[0]

    async def slow(_: web.Request) -> web.Response:
        shown[0] += 5
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}})

    monkeypatch.setattr(server, "stopwatch", watch)
    monkeypatch.setattr(calls, "stopwatch", watch)
    agent.handler = slow
    await proxy.enroll("a", url=agent.url)
    await proxy.send("a", await proxy.client())
    found = await scrape(proxy)
    assert 5 < (found("request_seconds_sum") or 0) < 5.1
    assert 0 < (found("request_added_seconds_sum") or 0) < 0.1


async def test_a_call_in_flight_shows_until_it_ends(proxy: Harness, agent: ScriptedAgent) -> None:
    seen: list[float | None] = []

    async def look(_: web.Request) -> web.Response:
        found = await scrape(proxy)
        seen.append(found("calls_in_flight", workspace="a"))
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}})

    agent.handler = look
    await proxy.enroll("a", url=agent.url)
    await proxy.send("a", await proxy.client())
    assert seen == [1]
    assert (await scrape(proxy))("calls_in_flight", workspace="a") == 0


async def test_a_workspace_shows_whether_it_serves_and_how_long_it_was_silent(
    proxy: Harness, agent: ScriptedAgent
) -> None:
    await proxy.enroll("a", url=agent.url)
    await proxy.enroll("poller", delivery_mode="poll")
    await proxy.call("POST", "/workspaces/a/heartbeat", json={"status": "ready"})
    found = await scrape(proxy)
    assert found("workspace_serving", workspace="a") == 1
    assert found("workspace_serving", workspace="poller") == 0
    assert 0 <= (found("workspace_sign_of_life_age_seconds", workspace="a") or -1) < 10
    assert found("workspace_sign_of_life_age_seconds", workspace="poller") is None
    assert found("workspaces", status="ready") == 1
    assert found("workspaces", status="abandoned") == 0


async def test_workspaces_beyond_the_limit_share_a_label_and_a_removed_one_makes_room(make: Make, nobody: str) -> None:
    proxy = await make(metrics__workspaces=2)
    client = await proxy.client()
    for name in "abcd":
        await proxy.enroll(name, url=nobody, unmanaged_away="defer")
        await proxy.send(name, client)
    found = await scrape(proxy)
    assert [found("queue_depth", workspace=name) for name in ("a", "b", "_other")] == [1, 1, 2]
    assert found("requests_total", workspace="_other", outcome="deferred", code="2xx") == 2
    assert found("queue_depth", workspace="c") is None
    await proxy.call("DELETE", "/workspaces/a")
    await proxy.send("c", client, message_id="m2")
    found = await scrape(proxy)
    assert found("requests_total", workspace="a", outcome="deferred", code="2xx") is None
    assert found("requests_total", workspace="c", outcome="deferred", code="2xx") == 1
    assert found("requests_total", workspace="_other", outcome="deferred", code="2xx") == 2


async def test_commits_and_their_sizes_are_measured(proxy: Harness) -> None:
    before = await scrape(proxy)
    await proxy.enroll("a", url="http://127.0.0.1:1")
    after = await scrape(proxy)
    counted = ("store_commit_seconds_count", "store_commit_units_count")
    assert all((after(name) or 0) > (before(name) or 0) for name in counted)
    assert (after("store_commit_units_sum") or 0) >= (after("store_commit_units_count") or 0) > 0


async def test_a_sink_that_fails_is_counted(proxy: Harness) -> None:
    def broken(_: object) -> None:
        raise OSError("disk full")

    proxy.app.telemetry.add(broken)
    await proxy.enroll("a", url="http://127.0.0.1:1")
    found = await scrape(proxy)
    failures = [value for (name, *_), value in found.samples.items() if name == "holdfast_event_sink_failures_total"]
    assert failures == [1]


# Form


async def test_openmetrics_is_given_to_who_asks_for_it(proxy: Harness) -> None:
    await proxy.enroll("a", url="http://127.0.0.1:1")
    got, body = await proxy.call("GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert got.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    names = {family.name for family in openmetrics(body.decode())}
    assert "holdfast_requests" in names


async def test_only_the_admin_and_readers_may_look(proxy: Harness) -> None:
    for token, status in ((None, 401), (await proxy.client(), 403)):
        got, _ = await proxy.call("GET", "/metrics", token=token)
        assert got.status == status


async def test_names_follow_the_conventions(proxy: Harness) -> None:
    found = await scrape(proxy)
    for family in found.families.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".") or not family.name.startswith("holdfast_")
        assert not family.name.endswith(("_count", "_sum", "_bucket"))
    assert all(name.startswith(("holdfast_", "process_")) for name in found.families)


@pytest.mark.parametrize("workspaces", [0, 1])
async def test_the_page_lists_every_metric_with_its_type_and_labels_and_no_other(make: Make, workspaces: int) -> None:
    proxy = await make(metrics__workspaces=workspaces)
    found = await scrape(proxy)
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| ", re.MULTILINE)
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in row.findall(PAGE.read_text("utf-8"))
    }
    shown = {}
    for family in found.families.values():
        total = f"{family.name}_total" if family.type == "counter" else family.name
        shown[total] = family.type
    assert {name: kind for name, (kind, _) in listed.items()} == shown
    for name, (_, labels) in listed.items():
        samples = [key for key in found.samples if key[0].startswith(name)]
        assert all({label for label, _ in key[1:]} - {"le"} == labels for key in samples)


async def test_the_alerts_on_the_page_name_series_that_there_are(proxy: Harness) -> None:
    await proxy.enroll("a", url="http://127.0.0.1:1")
    await proxy.call("POST", "/workspaces/a/heartbeat")
    found = await scrape(proxy)
    expressions = re.findall(r"^ +expr: (.+(?:\n +and .+)*)", PAGE.read_text("utf-8"), re.MULTILINE)
    named = {name for expression in expressions for name in re.findall(r"holdfast_\w+", expression)}
    assert len(named) >= 6
    assert named <= {key[0] for key in found.samples}
