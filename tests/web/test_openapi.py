"""The description of the API: every route is in it, it says nothing that is not there, and every status is real."""

import asyncio
import io
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import jsonschema_rs
from web.harness import Harness, ScriptedAgent

from proxy.web.openapi import DATA_PATH, METHODS, declared
from proxy.web.operations import Operation

Make = Callable[..., Awaitable[Harness]]


def routes(proxy: Harness) -> set[tuple[str, str]]:
    """Every route of the application; a HEAD goes with its GET."""
    found = proxy.app.server._application.router.routes()
    return {(route.method, route.resource.canonical) for route in found if route.resource and route.method != "HEAD"}


async def document(proxy: Harness) -> dict[str, Any]:
    got, body = await proxy.call("GET", "/openapi.json", token=None)
    assert got.status == 200
    assert got.headers["Content-Type"].startswith("application/json")
    return dict(json.loads(body))


async def test_every_route_is_described_and_every_description_has_its_route(proxy: Harness) -> None:
    paths = (await document(proxy))["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    data_path = {(method.upper(), path) for path in DATA_PATH for method in METHODS}
    assert described - data_path == routes(proxy)
    assert data_path <= described


async def test_the_document_is_valid_and_names_each_operation_once(proxy: Harness) -> None:
    said = await document(proxy)
    assert said["openapi"].startswith("3.1")
    assert said["info"]["version"]
    names = [operation["operationId"] for methods in said["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in said["tags"]}
    assert {
        tag for methods in said["paths"].values() for operation in methods.values() for tag in operation["tags"]
    } == tags
    for name, schema in said["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema), name
    references = set(_references(said))
    assert references <= {f"#/components/schemas/{name}" for name in said["components"]["schemas"]}
    assert references


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for inner in part.values() for found in _references(inner)]
    return [found for inner in part for found in _references(inner)] if isinstance(part, list) else []


async def test_a_parameter_in_a_path_is_described_where_it_stands(proxy: Harness) -> None:
    for path, methods in (await document(proxy))["paths"].items():
        for operation in methods.values():
            in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert in_path == set(path.replace("}", "{").split("{")[1::2])
            assert all(each["required"] for each in operation["parameters"] if each["in"] == "path")


async def test_who_asks_for_the_description_may_be_anybody_but_is_told_who_may_use_what(proxy: Harness) -> None:
    said = await document(proxy)
    assert said["paths"]["/tokens"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert said["paths"]["/healthz"]["get"]["security"] == []
    assert "the admin" in said["paths"]["/tokens"]["post"]["description"]


# Every documented status is real


class Asking:
    """Drives operations and remembers which of them answered what; answers are held against their schemas."""

    def __init__(self, proxy: Harness, said: dict[str, Any]) -> None:
        self.proxy = proxy
        self.said = said
        self.seen: dict[str, set[int]] = defaultdict(set)

    async def ask(self, operation: Operation, status: int | None = None, **more: Any) -> Any:
        path = more.pop("path", None) or fill(operation.path)
        async with asyncio.timeout(10):
            got, body = await self.proxy.call(operation.method, path, **more)
        assert status is None or got.status == status, (operation.name, got.status, body)
        responses = self.said["paths"][operation.path][operation.method.lower()]["responses"]
        assert str(got.status) in responses, f"{operation.name} answers {got.status}, undocumented: {body!r}"
        self.seen[operation.name].add(got.status)
        content = responses[str(got.status)]["content"]
        assert got.content_type in content
        schema = content[got.content_type].get("schema")
        if schema is not None:
            validator = jsonschema_rs.validator_for({**schema, "components": self.said["components"]})
            validator.validate(json.loads(body))
        return json.loads(body) if got.content_type == "application/json" else body


def fill(path: str, **values: str) -> str:
    for name in path.replace("}", "{").split("{")[1::2]:
        path = path.replace(f"{{{name}}}", values.get(name, "nobody"))
    return path


NAMED = {operation.name: operation for operation in declared()}


async def receipt_at(proxy: Harness, workspace: str) -> str:
    """Something that waits there."""
    got, _ = await proxy.send(workspace, await proxy.client(f"of-{workspace}"))
    return got.headers["Holdfast-Receipt"]


async def general(asking: Asking, nobody: str) -> None:
    """What holds for every operation: no token, a stranger's, nobody there, nonsense, too much."""
    stranger = await asking.proxy.client("stranger")
    await asking.proxy.enroll("waits", url=nobody, unmanaged_away="defer")
    receipt = await receipt_at(asking.proxy, "waits")
    for operation in declared():
        refusals = operation.refusals()
        here = fill(operation.path, id="here", queue_id=receipt, deferral_id=receipt)
        if 401 in refusals:
            await asking.ask(operation, 401, token=None)
        if 403 in refusals:
            await asking.ask(operation, 403, token=stranger)
        if operation.hidden:
            await asking.ask(operation, 404, path=here, token=stranger)
        if 404 in refusals and operation.body is None and "{" in operation.path:
            await asking.ask(operation, 404)
        if operation.body is not None:
            await asking.ask(operation, 400, path=here, data=b"[nonsense")
            await asking.ask(operation, path=here, data=io.BytesIO(b" " * 2**20 + b"{}"))
        for parameter in operation.parameters:
            if parameter.where == "query" and parameter.schema.get("type") in {"integer", "number"}:
                await asking.ask(operation, path=f"{here}?{parameter.name}=x")


async def story(asking: Asking, agent: ScriptedAgent, nobody: str) -> None:
    """Everything else, in an order in which it can happen."""
    proxy = asking.proxy
    here: dict[str, str] = {"id": "here"}

    async def ask(name: str, status: int, query: str = "", ids: dict[str, str] = here, **more: Any) -> Any:
        return await asking.ask(NAMED[name], status, path=fill(NAMED[name].path, **ids) + query, **more)

    await ask("put_workspace", 200, json={"url": agent.url})
    await ask("put_workspace", 400, ids={"id": "webhook:x"}, json={"url": agent.url})
    for name in ("list_workspaces", "show_workspace", "beat", "announce_restart", "restart", "list_queue"):
        await ask(name, 200)
    await ask("configure", 202, json={"data": 1})
    for name in ("list_decisions", "list_restarts", "find_decisions", "list_tokens", "list_deferrals"):
        await ask(name, 200)
    await ask("add_token", 404, json={"kind": "workspace", "name": "nobody"})
    made = await ask("add_token", 201, json={"kind": "client", "name": "one"})
    await ask("drop_token", 200, ids={"token_id": made["id"]})
    for name in ("healthz", "readyz", "metrics", "describe_api"):
        await ask(name, 200)
    for name, query in (("stream_events", "?level=x"), ("list_queue", "?status=x"), ("list_deferrals", "?limit=0")):
        await ask(name, 400, query)
    await ask("stream_events", 410, "?last_event_id=1-1")
    await ask("drop_stale", 404, "?workspace_id=nobody")
    await ask("drop_stale", 200)
    await proxy.enroll("away", url=nobody, unmanaged_away="defer")
    waiting = await receipt_at(proxy, "away")
    receipt = {"id": "away", "deferral_id": waiting, "queue_id": waiting}
    await ask("redrive", 409, ids=receipt)
    for name, status in (("show_deferral", 200), ("show_receipt", 200), ("cancel", 200), ("cancel", 409)):
        await ask(name, status, ids=receipt)
    await ask("cancel", 404, ids={"queue_id": "nobody"})
    for name in ("pause", "resume", "hibernate", "resume"):
        await ask(name, 200)
    await ask("pause", 200)
    for name in ("restart", "configure"):
        await ask(name, 409, json={})
    await ask("resume", 200)
    for name in ("beat", "announce_restart", "restart", "configure", "pause", "resume", "hibernate"):
        await ask(name, 404, ids={"id": "nobody"}, json={})
    await ask("put_workspace", 201, ids={"id": "doomed"}, json={"url": nobody})
    await ask("show_restart", 200, ids={**here, "generation": "1"})
    await ask("explain", 200, ids={"subject": "here"})
    await ask("show_card_keys", 200)
    await ask("claim", 409, json={})
    await ask("hibernate", 409, ids={"id": "waits"})
    await proxy.enroll("child", url=nobody, parent="here")
    await ask("pause", 200)
    await ask("resume", 409, ids={"id": "child"})
    await ask("resume", 200)
    await ask("remove_workspace", 200, ids={"id": "doomed"})


WORKING = b'{"statusUpdate":{"taskId":"up","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}\n'


async def delivery(asking: Asking) -> dict[str, str]:
    """A workspace that polls, from its claim to every end; returns the lease that it holds last."""
    proxy = asking.proxy
    await proxy.enroll("polls", delivery_mode="poll")

    async def leased(message_id: str) -> dict[str, str]:
        await proxy.send("polls", await proxy.client(message_id), message_id=message_id)
        path = fill(NAMED["claim"].path, id="polls")
        item = (await asking.ask(NAMED["claim"], 200, path=path, json={"max_items": 1}))["items"][0]
        return {"deferral_id": item["queue_id"], "queue_id": item["queue_id"], "lease_token": item["lease_token"]}

    async def ask(name: str, status: int, lease: dict[str, str], **said: Any) -> None:
        path = fill(NAMED[name].path, id="polls", **lease)
        if NAMED[name].body is None:
            headers = {"Holdfast-Lease-Token": lease["lease_token"], "Content-Type": "application/x-ndjson"}
            await asking.ask(NAMED[name], status, path=path, headers=headers, data=WORKING)
        else:
            await asking.ask(NAMED[name], status, path=path, json={"lease_token": lease["lease_token"], **said})

    first, second = await leased("p1"), await leased("p2")
    for name in ("extend", "tell_events", "complete"):
        await ask(name, 200, first)
    for name in ("extend", "tell_events", "complete", "fail"):
        await ask(name, 409, first)
    await ask("fail", 200, second, retry=False)
    await asking.ask(NAMED["redrive"], 200, path=fill(NAMED["redrive"].path, **second))
    return await leased("p3")


async def without_a_store(asking: Asking, lease: dict[str, str]) -> None:
    """The database is gone: whatever needs it says so."""
    bodies: dict[str, Any] = {
        "add_token": {"kind": "read", "name": "x"},
        "put_workspace": {"url": "http://127.0.0.1:1"},
        "beat": {"boot_id": "another"},
        **{name: {"lease_token": lease["lease_token"]} for name in ("extend", "complete", "fail")},
    }
    named = {"resume": "paused", "announce_restart": "fresh"}
    for name in named.values():
        await asking.proxy.enroll(name, url="http://127.0.0.1:1")
    await asking.proxy.call("POST", "/workspaces/paused/pause")
    await asking.proxy.call("POST", "/workspaces/here/heartbeat", json={"boot_id": "a new life"})
    await asking.proxy.app.store.aclose()
    for operation in declared():
        if 503 in operation.refusals() and 503 not in ELSEWHERE.get(operation.name, set()):
            more = {"json": bodies.get(operation.name, {})} if operation.body is not None else {}
            workspace = named.get(operation.name, "polls" if operation.tag == "delivery" else "here")
            path = fill(operation.path, id=workspace, subject="here", generation="1", **lease)
            await asking.ask(operation, path=path, **more)
    await asking.proxy.app.store.open()


ELSEWHERE: dict[str, set[int]] = {
    "stream_events": {200, 503},  # its answer has no end: test_events.py
    "restart": {202, 503},  # needs a runtime: tests/e2e, tests/loops
    "tell_events": {413},  # the inbox's own limits: test_polling_events.py, test_polling_leases.py
    "complete": {413},
}
"""What other tests show."""


async def test_what_is_documented_is_answered_and_what_is_answered_is_documented(
    proxy: Harness, agent: ScriptedAgent, nobody: str
) -> None:
    asking = Asking(proxy, await document(proxy))
    await proxy.enroll("here", url=agent.url)
    await general(asking, nobody)
    await story(asking, agent, nobody)
    await without_a_store(asking, await delivery(asking))
    missing = {
        operation.name: left
        for operation in declared()
        if (left := sorted({*operation.refusals(), *operation.answers} - {429} - asking.seen[operation.name]))
        and not set(left) <= ELSEWHERE.get(operation.name, set())
    }
    assert not missing, "\n".join(map(str, missing.items()))


async def test_a_caller_over_its_rate_gets_the_documented_429_everywhere(make: Make) -> None:
    proxy = await make(rate__requests_per_minute=1)
    asking = Asking(proxy, await document(proxy))
    client = await proxy.client()
    await proxy.call("GET", "/workspaces", token=client)
    for operation in declared():
        if 429 in operation.refusals():
            await asking.ask(operation, 429, token=client)
