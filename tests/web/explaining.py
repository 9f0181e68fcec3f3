"""Asking a proxy for explanations, and a workspace that has something to explain.

Owns: one question over the wire, reading a timeline. Knows nothing of: what is told.
"""

import json
from typing import Any

from web.compute import host, hosted
from web.harness import ADMIN_TOKEN, Harness, ScriptedAgent

ID = "Holdfast-Request-Id"
RECEIPT = "Holdfast-Receipt"
SETTLING = {"settle_hold": 30, "settle_window": 60}


async def ask(proxy: Harness, subject: str, token: str | None = ADMIN_TOKEN, **query: Any) -> tuple[int, Any]:
    """One question, and what is answered."""
    got, body = await proxy.call("GET", f"/explain/{subject}", token=token, params=query)
    return got.status, json.loads(body)


async def story(proxy: Harness, subject: str, **query: Any) -> dict[str, Any]:
    code, told = await ask(proxy, subject, **query)
    assert code == 200, told
    assert [event["at"] for event in told["timeline"]] == sorted(event["at"] for event in told["timeline"])
    return dict(told)


def sentences(told: dict[str, Any], *, own: bool = False) -> list[str]:
    """The events' sentences, in order."""
    return [f"{event['what']}: {event['why']}" for event in told["timeline"] if event["own"] or not own]


def in_this_order(told: dict[str, Any], *parts: str) -> None:
    """Every part stands in a sentence, each in a later one than the part before."""
    rest = iter(sentences(told))
    for part in parts:
        assert any(part in sentence for sentence in rest), (part, sentences(told))


async def just_restarted(proxy: Harness, agent: ScriptedAgent) -> tuple[str, str]:
    """A workspace that an admin restarted a moment ago and whose agent is gone; its id and a client's token."""
    compute = host(proxy)
    await hosted(proxy, compute, agent.url, policy=SETTLING)
    compute.starts.set()
    await proxy.call("POST", "/workspaces/a/restart", json={"reason": "new weights"})
    await proxy.until(lambda: len(proxy.named("restart.finished")) == 2)
    await agent.stop()
    return "a", await proxy.client()
