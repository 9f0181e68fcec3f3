"""The server's own manners, and the one private name of aiohttp's that it stands on."""

import inspect

from aiohttp import web
from web.harness import Harness


def test_aiohttp_still_serves_a_request_by_application_handle() -> None:
    assert inspect.iscoroutinefunction(web.Application._handle)
    assert list(inspect.signature(web.Application._handle).parameters) == ["self", "request"]


async def test_an_unknown_path_is_a_json_404_and_a_wrong_method_names_the_right_ones(proxy: Harness) -> None:
    got, body = await proxy.call("GET", "/nothing/here")
    assert (got.status, body) == (404, b'{"error":"there is no such path"}')
    got, _ = await proxy.call("PATCH", "/workspaces/a")
    assert got.status == 405
    assert got.headers["Allow"] == "DELETE, GET, HEAD, PUT"


async def test_health_needs_no_token_and_says_when_the_store_is_ready(proxy: Harness) -> None:
    for path in ("/healthz", "/readyz"):
        got, _ = await proxy.call("GET", path, token=None)
        assert got.status == 200
        assert got.headers["Server"] == "Holdfast"
