"""Answers whose headers came and whose bodies broke: the agent has the request, its client must know, it is judged."""

import base64
import json
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientResponse
from forward.scripted_upstream import Line
from web.compute import UNHURRIED, under
from web.failing_agents import breaks_off
from web.harness import V1, send

CALL = "/workspaces/a/a2a"


async def test_scenario_31_an_answer_that_breaks_is_502_and_its_workspace_is_judged(make: Any, listen: Any) -> None:
    proxy = await make(**UNHURRIED)
    await under(proxy, "dead", await listen(breaks_off), dead_action="defer")
    got, body = await proxy.call("POST", CALL, headers=V1, json=send())
    said = json.loads(body)["error"]["data"][0]
    assert (got.status, said["reason"], said["metadata"]["delivered"]) == (502, "ANSWER_LOST", "yes")
    assert await proxy.app.store.deferrals(workspace_id="a") == []
    await proxy.until(lambda: [event.rule for event in proxy.named("restart.started")] == ["", "not_running"])


async def everything(got: ClientResponse) -> tuple[bytes, bool]:
    """Read what came of a body; say whether it came to its end."""
    body = b""
    try:
        async for chunk in got.content.iter_any():
            body += chunk
    except ClientPayloadError:
        return body, False
    return body, True


async def test_scenario_31_a_stream_that_breaks_after_an_event_ends_with_an_error_and_its_workspace_is_judged(
    make: Any, listen: Any
) -> None:
    first = b'data: {"jsonrpc": "2.0", "id": 1, "result": {}}\n\n'

    async def breaks_after_an_event(line: Line) -> None:
        await line.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await line.say(head + b"%x\r\n%b\r\n" % (len(first), first))
        line.writer.close()

    proxy = await make(**UNHURRIED)
    await under(proxy, "dead", await listen(breaks_after_an_event))
    url, headers = proxy.url + CALL, {**V1, "Holdfast-Token": proxy.config.admin_token or ""}
    async with proxy.session.post(url, headers=headers, json={**send(), "method": "SendStreamingMessage"}) as got:
        body, whole = await everything(got)
    assert not whole
    assert body.startswith(first)
    last = body[len(first) :].decode()
    assert last.strip().startswith("event: error\ndata: ")
    said = json.loads(last.partition("data: ")[2])["error"]["data"][0]
    assert (said["reason"], said["metadata"]["delivered"]) == ("STREAM_BROKEN", "yes")
    assert await proxy.app.store.deferrals(workspace_id="a") == []
    await proxy.until(lambda: [event.rule for event in proxy.named("restart.started")] == ["", "not_running"])


@pytest.mark.parametrize(("redelivery", "end"), [("always", "completed"), ("never", "dead_lettered")])
async def test_scenario_31_a_promised_deferral_whose_answer_breaks_may_have_been_delivered(
    make: Any, listen: Any, redelivery: str, end: str
) -> None:
    heads: list[bytes] = []

    async def breaks_off_once(line: Line) -> None:
        head, _ = await line.request()
        heads.append(head)
        if len(heads) == 1:
            line.reset()  # what the client asked itself: so that it is put away
        elif len(heads) == 2:
            await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            line.reset()
        else:
            await line.answer(b"done")

    proxy = await make()
    await under(proxy, "alive", await listen(breaks_off_once), redelivery="always")
    got, _ = await proxy.call("POST", f"{CALL}/hook", data=b"told you")
    if redelivery == "never":
        await proxy.call("PUT", "/workspaces/a", json={"redelivery": "never"})
    assert got.status == 202
    await proxy.until(lambda: bool(proxy.named(f"deferral.{end}")))
    _, body = await proxy.call("GET", got.headers["Location"])
    view = json.loads(body)
    assert (view["status"], view["redelivery"]) == (end, "maybe")
    if end == "completed":
        assert base64.b64decode(view["response"]["body_base64"]) == b"done"
    assert len(heads) == (3 if end == "completed" else 2)
    assert [b"holdfast-redelivery: maybe" in head.lower() for head in heads] == [False, True, True][: len(heads)]
