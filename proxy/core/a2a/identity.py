"""Owns what makes two messages the same, and the form of the task ids that Holdfast gives away.

Knows nothing of who asked, and of which ids exist.

A provisional task id is a UUID of version 8 (RFC 9562 section 5.8: the free form) whose first 12 bits are 0x4a2. So any
replica knows from the text alone that the store may know this task, and a request that carries no such text costs one
search through its bytes. The next 48 bits are the milliseconds since the epoch (see `core.ids`), the rest is chance.
"""

import hashlib
import json
import random
import re
import uuid
from datetime import datetime
from typing import Any, Final

import msgspec

from proxy.core.a2a import members as m
from proxy.core.a2a.call import Binding
from proxy.core.a2a.reading import MalformedBody
from proxy.core.ids import growing_uuid, moment
from proxy.core.times import micros

_MARK: Final = 0x4A2
_FORM: Final = rb"4a2[0-9a-f]{5}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_PROVISIONAL: Final = re.compile(_FORM.decode())

PROVISIONAL_HINT: Final = re.compile(_FORM)
"""Finds a provisional id anywhere in raw bytes: no match, no look into the store."""


def provisional_id(chance: random.Random, now: datetime) -> str:
    """Make a task id for a deferred request."""
    millis = micros(now) // 1000 & 0xFFFF_FFFF_FFFF
    return str(uuid.UUID(int=growing_uuid(_MARK << 48 | millis, chance.getrandbits(62), version=8)))


def new_context_id(chance: random.Random, now: datetime) -> str:
    """Make a context id for a deferred send that named none: a UUID (version 7), as an agent may make them too."""
    return str(uuid.UUID(int=growing_uuid(moment(micros(now)), chance.getrandbits(62), version=7)))


def is_provisional(task_id: str) -> bool:
    """Whether a task id has the form that only Holdfast gives away (exactly as given: lower case)."""
    return _PROVISIONAL.fullmatch(task_id) is not None


def derived_id(*names: str) -> str:
    """An id for a message or artifact that Holdfast writes: the same names, the same id (RFC 9562 section 5.5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "holdfast:" + "/".join(names)))


def digest(body: bytes, *, binding: Binding | None = None) -> str:
    """SHA-256, in hex, of what a request says, so that a retry is known however it is written down.

    That is the canonical JSON (names sorted, no blanks) of the message of an A2A send, because a retry has a new
    JSON-RPC id; of everything else but that id otherwise; and the bytes themselves where they are no JSON. `binding`
    is what `read` said; without it a body with a message that has an id counts as a REST send.

    MalformedBody for a body that starts as a JSON object and is none: that must not be stored.
    """
    try:
        said = _said(msgspec.json.decode(body), binding)
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except m.UNREADABLE:
        if binding is not Binding.OTHER and body.lstrip()[:1] == b"{":
            raise MalformedBody("MALFORMED_BODY", "the body is not a JSON object") from None
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha256(canonical.encode()).hexdigest()


def _said(document: Any, binding: Binding | None) -> Any:
    if not isinstance(document, dict) or binding is Binding.OTHER:
        return document
    if "jsonrpc" in document:
        params = document.get("params")
        message = params.get("message") if isinstance(params, dict) else None
        return message if isinstance(message, dict) else {name: document[name] for name in document if name != "id"}
    for name in ("message", "request"):
        message = document.get(name)
        if isinstance(message, dict) and ("messageId" in message or "message_id" in message):
            return message
    return document
