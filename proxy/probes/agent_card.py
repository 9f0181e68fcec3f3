"""Owns asking an A2A agent for its card. Knows nothing of what the card says, nor who keeps it.

The card is served at the well-known URI below the agent's base URL (A2A, agent discovery; RFC 8615); it needs no
credentials and no model call, so it is the cheapest question every agent can answer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final
from urllib.parse import urlunsplit

from proxy import probes
from proxy.probes import Fetched, ProbeContext, Reading, Target, unknown_keys
from proxy.probes.http import fetched, no_url, parsed, reading_of

CARD_PATH: Final = "/.well-known/agent-card.json"
OK: Final = 200
UNKEPT: Final = frozenset({b"private", b"no-store"})


class Probe(probes.Probe):
    """Ready when the card's address is answered with a status below 500. The default where Holdfast dials."""

    name: ClassVar[str] = "agent_card"
    network: ClassVar[bool] = True

    def __init__(self, context: ProbeContext) -> None:
        self._fetch = context.fetch

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Accept `type` alone."""
        return unknown_keys(spec)

    async def probe(self, target: Target, timeout: float) -> Reading:  # noqa: ASYNC109 - the contract's
        """Ask once; not ready when there is no URL, no answer in time, or a server error."""
        base = parsed(target.url)
        if base is None:
            return no_url()
        url = urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + CARD_PATH, "", ""))
        found = await fetched(self._fetch, url, timeout)
        return found if isinstance(found, Reading) else replace(reading_of(found), card=_card(found))


def _card(found: Fetched) -> bytes | None:
    """What may be kept of the answer (RFC 9111 section 3.5)."""
    said = b",".join(value for name, value in found.headers if name.lower() == b"cache-control").lower()
    if found.status != OK or {one.partition(b"=")[0].strip() for one in said.split(b",")} & UNKEPT:
        return None
    return found.body
