"""Ids and tokens: everything in Holdfast that must be unguessable or unique is made here.

Owns: request ids, receipts, lease tokens, boot ids; tokens and their records; the admin's token at first start.
Knows nothing of: what they are for.
"""

import random
import secrets
import uuid
from dataclasses import replace
from pathlib import Path

from proxy.clock import Now
from proxy.core.ids import growing_uuid
from proxy.core.times import micros
from proxy.core.tokens import TokenKind, digest, new_token
from proxy.loops.routing import Routing
from proxy.store import Store, TokenRecord

SHOWN_PREFIX = 8
"""Characters of a token that lists show."""


class Mint:
    """Makes ids by injected chance and tokens by the operating system's."""

    def __init__(self, chance: random.Random, now: Now) -> None:
        self._chance = chance
        self._now = now
        self._made = micros(now())

    def new_id(self) -> str:
        """An unguessable id (UUID version 8, without hyphens) that sorts behind those made before.

        It counts on from the start of this process in microseconds: faster than that no proxy makes ids, and so those
        of a later start sort behind all of an earlier one. (Asking the clock would cost more than the rest.)
        """
        self._made += 1
        return f"{growing_uuid(self._made, self._chance.getrandbits(62), version=8):032x}"

    def token(self, kind: TokenKind, name: str) -> tuple[str, TokenRecord]:
        """A new token and the record that is kept of it."""
        token = new_token(secrets.token_bytes)
        record = TokenRecord(
            id=self.new_id(),
            kind=kind.value,
            name=name,
            digest=digest(token),
            prefix=token[:SHOWN_PREFIX],
            created_at=self._now(),
        )
        return token, record

    def workspace_token(self, workspace_id: str) -> tuple[str, TokenRecord]:
        """The token that a registration answers with."""
        return self.token(TokenKind.WORKSPACE, workspace_id)

    def child_token(self, workspace_id: str, incarnation: int) -> tuple[str, TokenRecord]:
        """The token that a started child gets; it dies with that incarnation."""
        token, record = self.workspace_token(workspace_id)
        return token, replace(record, incarnation=incarnation)

    async def admin_token(self, configured: str | None, routing: Routing, store: Store) -> tuple[str, str | None]:
        """Find the admin's token: configured, kept, or made now. Returns (its digest, the token if it was made)."""
        if configured:
            return digest(configured), None
        kept = [token for token in routing.tokens() if token.kind == TokenKind.ADMIN.value]
        if kept:
            return kept[0].digest, None
        token, record = self.token(TokenKind.ADMIN, "")
        await store.add_token(record)
        routing.add_token(record)
        return record.digest, token


def owner_of(state_dir: Path) -> str:
    """This host's identity among proxies: made once, kept beside the runtimes' state."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path = state_dir / "owner"
    if path.exists():
        return path.read_text().strip()
    name = uuid.UUID(bytes=secrets.token_bytes(16), version=4).hex
    partial = path.with_suffix(".new")
    partial.write_text(name + "\n")
    partial.replace(path)
    return name
