"""Owns the settings about agent cards: where their addresses lead, who signs them, how long they are kept.

Knows nothing of how a card is rewritten (`core.a2a.card`) or served (`web.cards`).
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from proxy.core.addresses import IPNetwork
from proxy.setting_kinds import About, seconds

_KIB: Final = 1024


class CardSignatures(StrEnum):
    """What becomes of the signatures of a card whose addresses were rewritten, and which they therefore belie."""

    STRIP = "strip"
    RESIGN = "resign"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSettings:
    """Agent cards on their way to clients; explained in cards.md."""

    signatures: Annotated[
        CardSignatures,
        About("Signatures of a card that was rewritten are taken away, or Holdfast's own takes their place."),
    ] = CardSignatures.STRIP
    key_file: Annotated[
        Path | None,
        About(
            "File of the keys that sign cards, made with mode 0600 at the first start with `resign`.",
            absent="`data` with `.card-key` added",
        ),
    ] = None
    keep_others: Annotated[
        bool, About("Interfaces that Holdfast does not carry (gRPC, other servers) stay in cards, and lead past it.")
    ] = False
    forwarded_from: Annotated[
        tuple[IPNetwork, ...],
        About("Networks of reverse proxies whose `X-Forwarded-Proto`, `-Host` and `-Prefix` say where clients call."),
    ] = ()
    max_age: Annotated[
        float, seconds("How long a client may keep a card whose agent says nothing about that; 0: nothing is said.")
    ] = 60.0
    keep_bytes: Annotated[
        int, About("Longest card that is kept for the time when its workspace is away; 0: none is.", unit="bytes")
    ] = 256 * _KIB
    write: Annotated[
        float, seconds("How long a card that has changed waits until it is written.", least=0.01, most=3600)
    ] = 1.0
