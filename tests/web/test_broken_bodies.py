"""A client that dies while it sends is nobody's error: no traceback, and the next client is served."""

import asyncio
import logging
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import pytest
from web.harness import ADMIN, ADMIN_TOKEN, Harness, ScriptedAgent

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
AUTHORIZATION = ADMIN["Authorization"].encode()


async def die_while_sending(harness: Harness, method: bytes, path: bytes) -> None:
    """Send a head and half of a body, reset the connection, and wait until the proxy has forgotten it."""
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(harness.url).port)
    head = b"%s %s HTTP/1.1\r\nHost: h\r\nAuthorization: %s\r\nContent-Length: 100\r\n\r\n"
    writer.write(head % (method, path, AUTHORIZATION) + b'{"half')
    await writer.drain()
    server: Any = harness.app.server

    def being_read() -> bool:
        fronts = [front for front in server._fronts if front._size]
        return bool(fronts) or any(one._request_in_progress for one in server._handlers.connections)

    async with asyncio.timeout(5):
        while not being_read():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.close()
    async with asyncio.timeout(5):
        while being_read():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"PUT", b"/workspaces/ws"), (b"POST", b"/workspaces/ws/heartbeat"), (b"POST", b"/workspaces/ws/a2a")],
)
async def test_a_client_that_dies_while_it_sends_leaves_no_error_behind(
    proxy: Harness, agent: ScriptedAgent, caplog: pytest.LogCaptureFixture, method: bytes, path: bytes
) -> None:
    await proxy.enroll("ws", url=agent.url)
    with caplog.at_level(logging.DEBUG, logger="aiohttp.server"):
        await die_while_sending(proxy, method, path)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    got, _ = await proxy.send("ws", ADMIN_TOKEN, message_id="after")
    assert got.status == 200
    assert len(agent.seen) == 1
