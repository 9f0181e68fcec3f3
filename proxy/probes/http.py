"""Owns asking a workspace by one HTTP GET. Knows nothing of what the answer says beyond its status.

Any status below 500 passes: an agent that answers 401 or 404 is there and serves. A redirect passes as it stands and
is not followed: where it leads to is not the workspace.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from proxy import probes
from proxy.probes import Fetch, Fetched, ProbeContext, Reading, Target, unknown_keys

FIRST_FAILING_STATUS: Final = 500
MAX_BYTES: Final = 64 * 1024
"""How much of a body is read at most, so that the connection may end in order."""


class Probe(probes.Probe):
    """Ready when GET `path` on the origin of the workspace's URL is answered with a status below 500."""

    name: ClassVar[str] = "http"
    network: ClassVar[bool] = True

    def __init__(self, context: ProbeContext) -> None:
        self._fetch = context.fetch

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Accept `path`: absolute, `/` unless set, a query allowed."""
        problems = unknown_keys(spec, "path")
        path = spec.get("path", "/")
        if not isinstance(path, str) or not path.startswith("/") or path.startswith("//") or not _is_plain(path):
            problems.append("probe.path: must start with one '/' and hold neither spaces, controls nor '#'")
        return problems

    async def probe(self, target: Target, timeout: float) -> Reading:  # noqa: ASYNC109 - the contract's
        """Ask once; not ready when there is no URL, no answer in time, or a server error."""
        origin = parsed(target.url)
        if origin is None:
            return no_url()
        path, _, query = str(target.spec.get("path", "/")).partition("?")
        url = urlunsplit((origin.scheme, origin.netloc, path, query, ""))
        return await status_reading(self._fetch, url, timeout)


async def status_reading(fetch: Fetch, url: str, timeout: float) -> Reading:  # noqa: ASYNC109 - the contract's
    """Read readiness off one GET."""
    found = await fetched(fetch, url, timeout)
    return found if isinstance(found, Reading) else reading_of(found)


async def fetched(fetch: Fetch, url: str, timeout: float) -> Fetched | Reading:  # noqa: ASYNC109 - the contract's
    """Ask once; the reading where no answer came."""
    try:
        async with asyncio.timeout(timeout):
            return await fetch(url, timeout=timeout, max_bytes=MAX_BYTES)
    except TimeoutError:
        return not_ready(f"no answer within {timeout:g} s")
    except (OSError, ValueError) as problem:
        return not_ready(f"no answer: {type(problem).__name__}")


def reading_of(found: Fetched) -> Reading:
    """What a status says."""
    if found.status >= FIRST_FAILING_STATUS:
        return not_ready(f"answered {found.status}")
    return Reading(ready=True, state=None, detail=f"answered {found.status}")


def not_ready(detail: str) -> Reading:
    """Make a network probe's only kind of failure."""
    return Reading(ready=False, state=None, detail=detail)


def parsed(url: str | None) -> SplitResult | None:
    """Take a workspace's URL apart; None when there is none or it makes no sense."""
    try:
        return None if url is None else urlsplit(url)
    except ValueError:
        return None


def no_url() -> Reading:
    """Make the reading of a workspace that nobody can dial."""
    return not_ready("the workspace has no URL that can be dialled")


def _is_plain(path: str) -> bool:
    return "#" not in path and path.isascii() and path.isprintable() and " " not in path
