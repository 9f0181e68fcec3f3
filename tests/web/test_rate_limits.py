"""How often a caller may call, over the wire; time is a number that the test turns."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from web.harness import ADMIN_TOKEN, V1, Harness, ScriptedAgent, completed, send

from proxy.web.limits import network_of

CALL = "/workspaces/a/a2a"
SHOWN = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class Clock:
    """Seconds, of which none passes by itself."""

    def __init__(self, proxy: Harness) -> None:
        self.now = 1000.0
        proxy.app.limits.seconds = proxy.app.failures.seconds = lambda: self.now


def shown(got: Any) -> tuple[str | None, ...]:
    return tuple(got.headers.get(name) for name in SHOWN)


async def test_nothing_is_limited_by_default_and_nothing_is_added(proxy: Harness, agent: ScriptedAgent) -> None:
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    for got in [(await proxy.send("a", client, message_id=f"m{number}"))[0] for number in range(30)]:
        assert got.status == 200
        assert shown(got) == (None, None, None)


async def test_scenario_39_the_601st_request_in_a_minute_is_429(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=600)
    clock = Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client, other = await proxy.client(), await proxy.client("other")

    async def one() -> tuple[int, int]:
        got, _ = await proxy.call("POST", CALL, token=client, headers=V1, json=send())
        return got.status, int(got.headers["X-RateLimit-Remaining"])

    answers = [answer for _ in range(20) for answer in await asyncio.gather(*(one() for _ in range(30)))]
    assert {status for status, _ in answers} == {200}
    assert sorted(left for _, left in answers) == list(range(600))
    clock.now += 12.5
    got, body = await proxy.call("POST", CALL, token=client, headers=V1, json=send(rpc_id="mine"))
    answer = json.loads(body)
    assert (got.status, got.headers["Retry-After"], shown(got)) == (429, "48", ("600", "0", "48"))
    assert (answer["id"], answer["error"]["data"][0]["reason"]) == ("mine", "RATE_LIMITED")
    assert answer["error"]["data"][0]["metadata"] == {"retry_after": "48"}
    assert len(agent.seen) == 600
    got, _ = await proxy.send("a", other)
    assert (got.status, shown(got)) == (200, ("600", "599", "60"))
    clock.now += 47.5
    assert await one() == (200, 599)


async def test_a_plain_request_is_refused_in_plain_json(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=1)
    Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    await proxy.send("a", client)
    got, body = await proxy.call("GET", f"{CALL}/page", token=client)
    assert (got.status, json.loads(body)) == (429, {"error": "too many requests", "retry_after": 60})
    got, body = await proxy.call("POST", f"{CALL}/message:send", token=client, headers=V1, json=send())
    assert (got.status, json.loads(body)["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")


async def test_every_answer_says_what_is_left(make: Any, agent: ScriptedAgent, nobody: str) -> None:
    proxy = await make(rate__requests_per_minute=100)
    Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    await proxy.enroll("away", url=nobody)
    client = await proxy.client()

    async def streamed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"n": 1}\n\n')
        return response

    got, _ = await proxy.send("a", client)
    assert (got.status, shown(got)) == (200, ("100", "99", "60"))
    agent.handler = streamed
    got, body = await proxy.call("POST", CALL, token=client, headers=V1, json=send())
    assert (body, shown(got)) == (b'data: {"n": 1}\n\n', ("100", "98", "60"))
    got, _ = await proxy.send("away", client)
    assert (got.status, shown(got)) == (502, ("100", "97", "60"))
    got, _ = await proxy.send("unknown", client)
    assert (got.status, shown(got)) == (404, ("100", "96", "60"))
    got, _ = await proxy.call("GET", "/workspaces/a/queue", token=client)
    assert (got.status, shown(got)) == (200, ("100", "95", "60"))
    got, _ = await proxy.call("POST", CALL, token=None, headers=V1, json=send())
    assert (got.status, shown(got)) == (401, (None, None, None))


async def test_an_agents_own_limits_pass_as_they_are(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=100)
    await proxy.enroll("a", url=agent.url)

    async def limited(request: web.Request) -> web.StreamResponse:
        return web.json_response(completed(await request.read()), headers={"X-RateLimit-Remaining": "3"})

    agent.handler = limited
    got, _ = await proxy.send("a", await proxy.client())
    assert shown(got) == (None, "3", None)


async def test_a_burst_is_a_limit_of_its_own(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=60, rate__burst=3)
    clock = Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    statuses = [(await proxy.send("a", client, message_id=f"m{number}"))[0].status for number in range(4)]
    clock.now += 1
    statuses += [(await proxy.send("a", client, message_id=f"n{number}"))[0].status for number in range(2)]
    assert statuses == [200, 200, 200, 429, 200, 429]


async def test_callers_may_have_limits_of_their_own(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=2, rate__callers="client:batch=4,admin=0,b=1")
    Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    tokens = {
        "client": await proxy.client(),
        "batch": await proxy.client("batch"),
        "admin": ADMIN_TOKEN,
        "b": await proxy.enroll("b", url=agent.url),
    }
    served = {
        name: [(await proxy.send("a", token, message_id=f"{name}{n}"))[0].status for n in range(6)].count(200)
        for name, token in tokens.items()
    }
    assert served == {"client": 2, "batch": 4, "admin": 6, "b": 1}


async def test_the_admin_is_a_caller_like_any_other_on_the_data_path_and_none_elsewhere(
    make: Any, agent: ScriptedAgent
) -> None:
    proxy = await make(rate__requests_per_minute=1)
    Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    statuses = [(await proxy.send("a", ADMIN_TOKEN, message_id=f"m{number}"))[0].status for number in range(2)]
    assert statuses == [200, 429]
    for _ in range(3):
        got, _ = await proxy.call("GET", "/workspaces")
        assert (got.status, shown(got)) == (200, (None, None, None))


async def test_a_workspace_over_its_limit_still_beats_and_registers(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=1)
    Clock(proxy)
    token = await proxy.enroll("a", url=agent.url)
    statuses = [(await proxy.send("a", token, message_id=f"m{number}"))[0].status for number in range(2)]
    assert statuses == [200, 429]
    for _ in range(3):
        got, _ = await proxy.call("POST", "/workspaces/a/heartbeat", token=token)
        assert (got.status, shown(got)) == (200, (None, None, None))
    got, _ = await proxy.call("PUT", "/workspaces/a", token=token, json={"url": agent.url})
    assert got.status == 200
    got, _ = await proxy.call("GET", "/workspaces/a", token=token)
    assert got.status == 429


async def test_the_join_token_is_limited_where_it_creates_workspaces(make: Any, agent: ScriptedAgent) -> None:
    join = "hf_" + "j" * 43
    proxy = await make(join_token=join, rate__requests_per_minute=2)
    Clock(proxy)
    statuses = [
        (await proxy.call("PUT", f"/workspaces/n{number}", token=join, json={"url": agent.url}))[0].status
        for number in range(3)
    ]
    assert statuses == [201, 201, 429]


async def test_a_limit_that_was_met_is_one_event_a_minute(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__requests_per_minute=1)
    clock = Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    for minute in range(2):
        for number in range(4):
            await proxy.send("a", client, message_id=f"m{minute}-{number}")
        clock.now += 60
    told = [event.fields for event in proxy.named("rate.exceeded")]
    assert told == [{"caller": "client:client", "limit": 1, "retry_after": 60}] * 2


# --- addresses that try tokens ---------------------------------------------------------------------------------------


async def test_an_address_that_showed_too_many_wrong_tokens_is_not_listened_to(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__failures_per_minute=3)
    clock = Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    for guess in ("hf_wrong", None, "hf_worse"):
        got, _ = await proxy.call("POST", CALL, token=guess, headers=V1, json=send())
        assert got.status == 401
    for token in (client, "hf_wrong"):
        got, body = await proxy.call("POST", CALL, token=token, headers=V1, json=send())
        assert (got.status, got.headers["Retry-After"]) == (429, "60")
        assert json.loads(body)["error"]["data"][0]["reason"] == "RATE_LIMITED"
    for path, status in (("/workspaces", 429), ("/healthz", 200), ("/readyz", 200)):
        got, _ = await proxy.call("GET", path)
        assert (path, got.status) == (path, status)
    clock.now += 60
    assert (await proxy.send("a", client))[0].status == 200
    assert len(proxy.named("rate.exceeded")) == 1


@pytest.mark.parametrize(
    ("remote", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "local"),
        (None, "local"),
    ],
)
def test_an_address_is_counted_with_all_that_its_subscriber_may_choose(remote: str | None, counted_as: str) -> None:
    assert network_of(remote) == counted_as


async def test_who_asks_whether_the_proxy_is_up_is_not_counted(make: Any) -> None:
    proxy = await make(rate__requests_per_minute=1)
    Clock(proxy)
    client = await proxy.client()
    for path in ("/healthz", "/readyz", "/openapi.json") * 2:
        got, _ = await proxy.call("GET", path, token=client)
        assert (path, got.status) == (path, 200)


async def test_who_shows_valid_tokens_is_not_counted_as_guessing(make: Any, agent: ScriptedAgent) -> None:
    proxy = await make(rate__failures_per_minute=1)
    Clock(proxy)
    await proxy.enroll("a", url=agent.url)
    client = await proxy.client()
    for _ in range(3):
        assert (await proxy.send("a", client))[0].status == 200
        got, _ = await proxy.call("GET", "/tokens", token=client)
        assert got.status == 403


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ({}, "no_token"),
        ({"Authorization": "Basic abc"}, "no_token"),
        ({"Holdfast-Token": "nonsense"}, "bad_token"),
        ({"Holdfast-Token": "hf_" + "x" * 43}, "unknown_token"),
        ({"Authorization": "Bearer hf_" + "x" * 43}, "unknown_token"),
    ],
)
async def test_the_log_knows_why_a_token_was_refused(proxy: Harness, headers: dict[str, str], rule: str) -> None:
    got, _ = await proxy.call("GET", "/workspaces", token=None, headers=headers)
    assert got.status == 401
    event = proxy.named("auth.refused")[0]
    assert (event.rule, event.fields["path"], event.fields["status"]) == (rule, "/workspaces", 401)
    assert "xxx" not in json.dumps(event.as_dict(), default=str)
