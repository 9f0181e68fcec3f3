"""A proxy process that is killed while its pollers hold leases: they stay theirs, and nothing is handed out twice."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from e2e.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

Make = Callable[..., Any]


async def claim(proxy: Serving, **said: Any) -> list[dict[str, Any]]:
    got = await proxy.ask("POST", "/workspaces/p/queue/claim", json=said)
    assert got.status == 200, got
    return list(got.json["items"])


async def complete(proxy: Serving, item: dict[str, Any]) -> int:
    body = json.loads(base64.b64decode(item["body_base64"]))
    task = {
        "id": "up",
        "contextId": body["params"]["message"]["contextId"],
        "status": {"state": "TASK_STATE_COMPLETED"},
        "artifacts": [{"artifactId": "a", "parts": [{"text": "done"}]}],
    }
    answer = json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": {"task": task}}).encode()
    said = {"lease_token": item["lease_token"], "status": 200, "body_base64": base64.b64encode(answer).decode()}
    got = await proxy.ask("POST", f"/workspaces/p/queue/{item['queue_id']}/complete", json=said)
    return int(got.status)


async def revive(proxy: Serving) -> None:
    await proxy.kill()
    await proxy.start()


async def test_a_poller_s_lease_and_its_token_outlive_a_killed_proxy(make: Make) -> None:
    proxy = await make()
    await proxy.enroll("p", delivery_mode="poll")
    client = await proxy.client()
    got = await proxy.send("p", token=client)
    (item,) = await claim(proxy, lease_seconds=600)
    await revive(proxy)
    assert (await proxy.deferral(got))["status"] == "leased"
    assert await claim(proxy) == []
    renewed = await proxy.ask(
        "POST", f"/workspaces/p/queue/{item['queue_id']}/extend", json={"lease_token": item["lease_token"]}
    )
    assert renewed.status == 200
    assert await complete(proxy, item) == 200
    shown = await proxy.deferral(got)
    assert (shown["status"], shown["redelivery"], shown["attempts"]) == ("completed", "no", 0)


async def test_a_lease_that_runs_out_while_the_proxy_is_dead_comes_back_marked(make: Make) -> None:
    proxy = await make(poll__lease_least=0.2)
    await proxy.enroll("p", delivery_mode="poll")
    got = await proxy.send("p", token=await proxy.client())
    (item,) = await claim(proxy, lease_seconds=0.2)
    await revive(proxy)
    (again,) = await claim(proxy, wait_seconds=20)
    assert (again["queue_id"], again["redelivery"], again["attempt"]) == (item["queue_id"], "maybe", 2)
    assert await complete(proxy, item) == 409
    assert await complete(proxy, again) == 200
    assert (await proxy.deferral(got))["status"] == "completed"


async def test_a_deferral_whose_202_left_before_the_kill_is_claimed_from_the_next_proxy(make: Make) -> None:
    proxy = await make()
    await proxy.enroll("p", delivery_mode="poll")
    client = await proxy.client()
    accepted = [await proxy.send("p", f"m{number}", token=client) for number in range(5)]
    assert {got.status for got in accepted} == {202}
    await revive(proxy)
    items = await claim(proxy, max_items=10, wait_seconds=20)
    assert {item["queue_id"] for item in items} == {got.headers["Holdfast-Receipt"] for got in accepted}
    assert {item["redelivery"] for item in items} == {"no"}
