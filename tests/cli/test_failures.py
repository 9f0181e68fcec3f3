"""Whatever goes wrong between a command and a proxy is one sentence, one exit code, and never a traceback."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from cli.commandline import ran, run
from cli.conftest import Holdfast
from ports import free_port
from web.harness import Handler, Harness

Someone = Callable[[Handler], Awaitable[str]]


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("workspaces",),
        ("queue", "list"),
        ("queue", "drop-stale", "--yes"),
        ("restart", "a"),
        ("decisions", "a"),
        ("token",),
        ("events",),
        ("events", "--follow"),
    ],
    ids=" ".join,
)
def test_a_proxy_that_is_not_there_is_told_in_one_sentence(words: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run(*words, "--url", url)
    assert (done.code, done.out) == (3, "")
    assert done.err == f"holdfast: cannot reach {url}: connection refused; is `holdfast serve` running? (--url)\n"


def test_a_host_that_there_is_not() -> None:
    done = run("status", HOLDFAST_URL="http://proxy.invalid:8080")
    assert (done.code, done.err) == (3, "holdfast: cannot reach http://proxy.invalid:8080: no such host (--url)\n")


@pytest.mark.parametrize("url", ["proxy:8080", "ftp://proxy", "http://", "http://proxy/?a=b", "http://a b", ""])
def test_a_url_that_is_none_is_wrong_usage(url: str) -> None:
    done = run("status", "--url", url)
    assert done.code == 2
    assert "--url (HOLDFAST_URL): must be an absolute http or https URL" in done.err


async def test_a_server_that_does_not_answer_in_time(someone: Someone) -> None:
    async def wait(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    url = await someone(wait)
    done = await ran("workspaces", "--timeout", "0.2", HOLDFAST_URL=url)
    assert (done.code, done.err) == (3, f"holdfast: {url} did not answer within 0.2 s (--timeout)\n")


async def test_a_connection_that_breaks_says_that_it_may_have_been_done(someone: Someone) -> None:
    async def leave(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    url = await someone(leave)
    done = await ran("restart", "a", HOLDFAST_URL=url)
    assert done.code == 3
    assert "broke before the answer was there; what was asked may have been done" in done.err


async def test_a_server_that_is_no_holdfast(someone: Someone) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    url = await someone(page)
    done = await ran("workspaces", HOLDFAST_URL=url)
    assert (done.code, done.err) == (3, f"holdfast: what answers at {url} is no Holdfast: 200, and no JSON (--url)\n")


async def test_json_of_somebody_elses_api_is_not_understood_and_no_traceback(someone: Someone) -> None:
    async def other(_: web.Request) -> web.Response:
        return web.json_response({"items": "no list"})

    url = await someone(other)
    for words in (
        ("workspaces",),
        ("queue",),
        ("decisions", "a"),
        ("token",),
        ("status",),
        ("workspaces", "show", "a"),
    ):
        done = await ran(*words, HOLDFAST_URL=url)
        assert done.code == 1, words
        assert f"is there a Holdfast of this version at {url}?" in done.err


async def test_what_is_not_understood_is_printed_as_it_came_with_json(someone: Someone) -> None:
    async def other(_: web.Request) -> web.Response:
        return web.json_response({"new": "form"})

    assert (await ran("workspaces", "--json", HOLDFAST_URL=await someone(other))).json == {"new": "form"}


async def test_a_redirect_is_not_followed_with_the_token(someone: Someone) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/other")

    url = await someone(elsewhere)
    done = await ran("workspaces", HOLDFAST_URL=url, HOLDFAST_TOKEN="hf_" + "t" * 40)
    assert (done.code, asked) == (1, ["/workspaces"])
    assert f"{url} sends us to /other" in done.err


async def test_plain_text_where_tls_was_expected(someone: Someone) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.json_response({})

    url = (await someone(page)).replace("http://", "https://")
    done = await ran("workspaces", HOLDFAST_URL=url)
    assert (done.code, done.err) == (
        3,
        f"holdfast: cannot reach {url}: it does not speak TLS; is the URL http://...?\n",
    )


async def test_something_that_speaks_no_http() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done = await ran("workspaces", HOLDFAST_URL=url)
    assert (done.code, done.err) == (3, f"holdfast: what answers at {url} does not speak HTTP (--url)\n")


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_without_a_token_it_is_said_how_to_give_one(holdfast: Holdfast, proxy: Harness) -> None:
    done = await holdfast("workspaces", HOLDFAST_ADMIN_TOKEN="")
    assert (done.code, done.out) == (5, "")
    assert done.err == f"holdfast: {proxy.url} asks for a token: set HOLDFAST_TOKEN, or give --token\n"


async def test_a_token_that_is_not_known_is_named_by_its_source_and_never_shown(
    holdfast: Holdfast, proxy: Harness
) -> None:
    secret = "hf_" + "s" * 40
    by_variable = await holdfast("workspaces", HOLDFAST_TOKEN=secret)
    by_option = await holdfast("workspaces", "--token", secret)
    assert (by_variable.code, by_option.code) == (5, 5)
    assert by_variable.err == f"holdfast: {proxy.url} does not accept the token of HOLDFAST_TOKEN\n"
    assert by_option.err == f"holdfast: {proxy.url} does not accept the token of --token\n"


async def test_a_token_that_may_not_do_that(holdfast: Holdfast, proxy: Harness) -> None:
    done = await holdfast("token", HOLDFAST_TOKEN=await proxy.client())
    assert (done.code, done.err) == (5, "holdfast: this token may not do that (the token of HOLDFAST_TOKEN)\n")


def test_what_has_not_the_form_of_a_token_is_wrong_usage_and_never_shown() -> None:
    for variables, words in (({"HOLDFAST_TOKEN": "s3cret word"}, ()), ({}, ("--token", "s3cret word"))):
        done = run("workspaces", *words, **variables)
        assert done.code == 2
        assert "is not of the form of a Holdfast token" in done.err
        assert "s3cret" not in done.err


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("workspaces", "show", "nobody"), "unknown workspace nobody"),
        (("workspaces", "remove", "nobody", "--yes"), "unknown workspace nobody"),
        (("restart", "nobody"), "unknown workspace nobody"),
        (("decisions", "nobody"), "unknown workspace nobody"),
        (("queue", "show", "nothing"), "unknown receipt"),
        (("queue", "redrive", "nothing"), "nothing: unknown receipt"),
        (("queue", "drop-stale", "--workspace", "nobody", "--yes"), "unknown workspace nobody"),
        (("token", "revoke", "nothing", "--yes"), "unknown token"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_there_is_not_is_exit_4(holdfast: Holdfast, words: tuple[str, ...], sentence: str) -> None:
    done = await holdfast(*words)
    assert (done.code, done.out, done.err) == (4, "", f"holdfast: {sentence}\n")


async def test_with_json_the_refusal_is_printed_too(holdfast: Holdfast) -> None:
    done = await holdfast("workspaces", "show", "nobody", "--json")
    assert (done.code, done.json, done.err) == (
        4,
        {"error": "unknown workspace nobody"},
        "holdfast: unknown workspace nobody\n",
    )


async def test_a_proxy_that_asks_to_come_back_says_when(someone: Someone) -> None:
    async def full(_: web.Request) -> web.Response:
        return web.json_response({"error": "too many\x1b[2J"}, status=429, headers={"Retry-After": "7"})

    done = await ran("workspaces", HOLDFAST_URL=await someone(full))
    assert (done.code, done.err) == (1, "holdfast: too many\\x1b[2J; try again in 7 s\n")


@pytest.mark.parametrize("name", ["a/b", "..", "", "-", "x" * 129, "webhook:a"])
def test_what_cannot_be_an_id_is_wrong_usage_and_nobody_is_asked(name: str) -> None:
    assert run("workspaces", "show", "--", name, HOLDFAST_URL=f"http://127.0.0.1:{free_port()}").code == 2
