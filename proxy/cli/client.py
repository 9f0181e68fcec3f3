"""The HTTP API as commands ask it: one request, one answer or one clear failure.

Owns: the connection, the token's header, timeouts, and which failure is which exit code.
Knows nothing of: commands, and what an answer means.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import click

from proxy import __version__
from proxy.cli.exit_codes import Exit
from proxy.cli.words import clean

CONNECT_TIMEOUT: Final = 5.0
"""Seconds until a connection stands."""
LONGEST_SILENCE: Final = 120.0
"""Seconds after which a stream that says nothing is taken for broken; a proxy's says something every 15."""
MOST_SAID: Final = 300
"""Characters of an answer that are repeated in a failure's sentence."""

_FIRST_REDIRECT, _FIRST_REFUSAL = 300, 400
_UNAUTHENTICATED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_EXITS: Final = {_UNAUTHENTICATED: Exit.NOT_ALLOWED, _FORBIDDEN: Exit.NOT_ALLOWED, _NOT_FOUND: Exit.NOT_FOUND}


class Failure(click.ClickException):
    """A command that ends here: one sentence on standard error and an exit code.

    ``status`` and ``text`` are those of the API's answer, where there is one.
    """

    def __init__(self, message: str, exit_code: Exit = Exit.FAILED, *, status: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads the instance's; its stubs know only a class's
        self.status = status
        self.text = text

    def show(self, file: Any = None) -> None:
        """Print the sentence."""
        click.echo(f"holdfast: {self.message}", file=file, err=file is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no failure: its status, its JSON as it came and as data."""

    status: int
    text: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a proxy is asked, and as whom. ``token_from`` names where the token was found, for sentences."""

    url: str
    token: str | None
    token_from: str
    timeout: float
    """Seconds for a whole answer."""


class Proxy:
    """One proxy, asked over HTTP. Every method raises `Failure` for everything but a good answer."""

    def __init__(self, session: aiohttp.ClientSession, place: Place) -> None:
        self._session = session
        self._place = place

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return self._place.url

    async def get(self, path: str, **query: object) -> Answer:
        """GET; members of the query that are None are left out."""
        return await self.ask("GET", path, query=query)

    async def post(self, path: str, body: object = None, **query: object) -> Answer:
        """POST, with a JSON body where there is one."""
        return await self.ask("POST", path, query=query, body=body)

    async def put(self, path: str, body: object) -> Answer:
        """PUT of a JSON body."""
        return await self.ask("PUT", path, body=body)

    async def delete(self, path: str) -> Answer:
        """DELETE."""
        return await self.ask("DELETE", path)

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: object = None
    ) -> Answer:
        """One request; ``path`` is made of `at`. A POST whose connection broke may have been done."""
        async with self.open(method, path, query=query, body=body) as got:
            with _failures(self._place):
                return _answer(self._place, got.status, await got.text(errors="replace"), got.headers)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        endless: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request whose answer is read by the caller; ``endless`` is for streams, which have no timeout."""
        place = self._place
        limits = aiohttp.ClientTimeout(
            total=None if endless else place.timeout,
            sock_connect=min(CONNECT_TIMEOUT, place.timeout),
            sock_read=LONGEST_SILENCE if endless else None,
        )
        credentials = {"Holdfast-Token": place.token} if place.token else {}
        with _failures(place):
            got = await self._session.request(
                method,
                place.url + path,
                params={name: str(value) for name, value in (query or {}).items() if value is not None},
                json=body,
                headers={"Accept": "application/json", **credentials, **(headers or {})},
                timeout=limits,
                allow_redirects=False,
            )
        try:
            yield got
        finally:
            got.close()

    async def refuse(self, got: aiohttp.ClientResponse) -> None:
        """Raise for an answer of `open` that is a failure; read nothing of a good one."""
        if not got.ok or got.status >= _FIRST_REDIRECT:
            with _failures(self._place):
                _answer(self._place, got.status, await got.text(errors="replace"), got.headers)

    async def lines(self, got: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
        """Yield the lines of a streamed answer as they come, without their ends."""
        while True:
            with _failures(self._place):
                line = await got.content.readline()
            if not line:
                return
            yield line.decode("utf-8", "replace").rstrip("\r\n")


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Proxy]:
    """A proxy to ask; nothing is dialled before the first question."""
    async with aiohttp.ClientSession(headers={"User-Agent": f"holdfast/{__version__}"}) as session:
        yield Proxy(session, place)


def at(*parts: str) -> str:
    """Return the path of these segments, each escaped: ids come from the command line."""
    return "".join(f"/{quote(part, safe=':')}" for part in parts)


@contextmanager
def _failures(place: Place) -> Iterator[None]:
    """Turn whatever can go wrong on the way into a `Failure`."""
    try:
        yield
    except TimeoutError:  # aiohttp's are of this kind, too
        raise Failure(f"{place.url} did not answer within {place.timeout:g} s (--timeout)", Exit.UNREACHABLE) from None
    except aiohttp.InvalidURL:
        raise Failure(f"{place.url} is not a URL that can be asked (--url)", Exit.USAGE) from None
    except aiohttp.ClientConnectorError as problem:
        raise Failure(f"cannot reach {place.url}: {_why(problem)}", Exit.UNREACHABLE) from None
    except aiohttp.ClientResponseError:
        raise Failure(f"what answers at {place.url} does not speak HTTP (--url)", Exit.UNREACHABLE) from None
    except (aiohttp.ClientError, OSError):
        raise Failure(
            f"the connection to {place.url} broke before the answer was there; what was asked may have been done",
            Exit.UNREACHABLE,
        ) from None


def _why(problem: aiohttp.ClientConnectorError) -> str:
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        said = getattr(problem.certificate_error, "verify_message", "") or "it cannot be verified"
        return f"its certificate is not trusted: {said} (SSL_CERT_FILE names a file of your own authorities)"
    if isinstance(problem, aiohttp.ClientConnectorSSLError):
        return "it does not speak TLS; is the URL http://...?"
    if isinstance(problem, aiohttp.ClientConnectorDNSError):
        return "no such host (--url)"
    if isinstance(problem.os_error, ConnectionRefusedError):
        return "connection refused; is `holdfast serve` running? (--url)"
    words = problem.os_error.strerror or str(problem.os_error)
    return f"{words[:1].lower()}{words[1:]} (--url)"


def _answer(place: Place, status: int, text: str, headers: Mapping[str, str]) -> Answer:
    """Return an answer that is fine.

    Raises:
        Failure: for every status but 2xx, and for what is no JSON, which some other server sent.
    """
    if _FIRST_REDIRECT <= status < _FIRST_REFUSAL:
        where = headers.get("Location", "elsewhere")[:MOST_SAID]
        raise Failure(f"{place.url} sends us to {where}; give the URL of the proxy itself (--url)", status=status)
    try:
        data = json.loads(text)
    except ValueError:
        raise Failure(
            f"what answers at {place.url} is no Holdfast: {status}, and no JSON (--url)",
            Exit.UNREACHABLE,
            status=status,
        ) from None
    if status >= _FIRST_REFUSAL:
        raise Failure(
            _sentence(place, status, data, headers), _EXITS.get(status, Exit.FAILED), status=status, text=text
        )
    return Answer(status=status, text=text, data=data)


def _sentence(place: Place, status: int, data: Any, headers: Mapping[str, str]) -> str:
    said = data.get("error") if isinstance(data, dict) else None
    sentence = clean(said)[:MOST_SAID] if isinstance(said, str) else f"{place.url} answered {status}"
    if status == _UNAUTHENTICATED and place.token is None:
        return f"{place.url} asks for a token: set HOLDFAST_TOKEN, or give --token"
    if status == _UNAUTHENTICATED:
        return f"{place.url} does not accept the token of {place.token_from}"
    if status == _FORBIDDEN:
        return f"{sentence} (the token of {place.token_from})"
    if status == _NOT_FOUND and place.token is None:
        return f"{sentence} (asked without a token: HOLDFAST_TOKEN is not set)"
    wait = headers.get("Retry-After", "")
    return f"{sentence}; try again in {wait} s" if wait.isdigit() else sentence
