"""A polling workspace's side of the inbox, for tests: thin words over the HTTP API."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from web.harness import Harness, completed


@dataclass
class Poller:
    """Claims and finishes for one workspace, as itself."""

    proxy: Harness
    token: str
    name: str = "a"
    boot_id: str | None = None

    async def post(self, path: str, said: Any = None, **more: Any) -> tuple[aiohttp.ClientResponse, Any]:
        body = {} if said is None else {"json": said}
        got, content = await self.proxy.call(
            "POST", f"/workspaces/{self.name}/queue/{path}", token=self.token, **body, **more
        )
        return got, json.loads(content)

    def _boot(self) -> dict[str, str]:
        return {} if self.boot_id is None else {"boot_id": self.boot_id}

    async def claim(self, **said: Any) -> list[dict[str, Any]]:
        got, answer = await self.post("claim", {**self._boot(), **said})
        assert got.status == 200, answer
        return list(answer["items"])

    async def one(self, **said: Any) -> dict[str, Any]:
        items = await self.claim(wait_seconds=20, **said)
        assert len(items) == 1, items
        return items[0]

    async def complete(self, item: dict[str, Any], body: bytes | None = None, **more: Any) -> tuple[int, Any]:
        """With the answer of an agent that did what it was told, unless another is given."""
        answer = b"" if body is None else body
        if body is None and "body_base64" not in more:
            answer = json.dumps(completed(body_of(item))).encode()
        said = {
            "lease_token": item["lease_token"],
            "status": 200,
            "headers": {"Content-Type": "application/json"},
            "body_base64": base64.b64encode(answer).decode(),
            **more,
        }
        got, said = await self.post(f"{item['queue_id']}/complete", said)
        return got.status, said

    async def fail(self, item: dict[str, Any], error: str = "no", *, retry: bool = True) -> tuple[int, Any]:
        said = {"lease_token": item["lease_token"], "error": error, "retry": retry}
        got, answer = await self.post(f"{item['queue_id']}/fail", said)
        return got.status, answer

    async def extend(self, item: dict[str, Any], seconds: float = 60, **more: Any) -> tuple[int, Any]:
        said = {"lease_token": item["lease_token"], "lease_seconds": seconds, **more}
        got, answer = await self.post(f"{item['queue_id']}/extend", said)
        return got.status, answer

    async def tell(
        self, item: dict[str, Any], data: Any, *, kind: str = "text/event-stream", query: str = ""
    ) -> tuple[int, Any]:
        """Send a body of events."""
        headers = {"Holdfast-Lease-Token": item["lease_token"], "Content-Type": kind}
        got, answer = await self.post(f"{item['queue_id']}/events{query}", data=data, headers=headers)
        return got.status, answer


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for what no event of the proxy's tells."""
    async with asyncio.timeout(20):
        while True:
            held = holds()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(0)


def body_of(item: dict[str, Any]) -> bytes:
    return base64.b64decode(item["body_base64"])


def message_of(item: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(body_of(item))["params"]["message"])


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
