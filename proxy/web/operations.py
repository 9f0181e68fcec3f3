"""What one route of the HTTP API is: the declaration from which it is described, and against which it is tested.

Owns: the parts of a declaration, and what follows from them for every route (who is asked for a token may get 401).
Knows nothing of: any particular route (each door declares its own, as `OPERATIONS`), the form of the document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

ADMIN: Final = "the admin"
OWN: Final = "the workspace itself"
READ: Final = "a `read` token"
JOIN: Final = "a `join` token"
CALLER: Final = "the caller that the deferral is of"
CLIENT: Final = "a client"
WORKSPACE: Final = "any workspace"
ANYBODY: Final[tuple[str, ...]] = ()

JSON: Final = "application/json"

UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, TOO_LARGE, TOO_MANY, UNAVAILABLE = 401, 403, 404, 413, 429, 503
BAD: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: where it stands (`path`, `query`, `header`), what it may be as a JSON schema, what it means."""

    name: str
    text: str
    where: str = "query"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success: what it means and what it looks like (`shape` is a type that msgspec knows, None without a schema)."""

    text: str
    shape: Any = None
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route.

    `who` may use it, in words; nobody is asked for a token where it is empty. `hidden`: whoever may not use it gets the
    404 of something that is not there; where it is `unseen`, whoever shows no token too. `errors`: what it refuses
    besides what follows from the rest, by status. `is_counted`: it counts against its caller's rate, if it shows a
    token. `must_exist`: 404 for a workspace that there is not. `uses_store`: 503 while the store cannot do it.
    """

    method: str
    path: str
    name: str
    text: str
    tag: str
    answers: Mapping[int, Answer]
    who: tuple[str, ...] = (ADMIN,)
    hidden: bool = False
    unseen: bool = False
    parameters: tuple[Parameter, ...] = ()
    body: type[msgspec.Struct] | None = None
    media: str = JSON
    errors: Mapping[int, str] = field(default_factory=dict)
    is_counted: bool = True
    must_exist: bool = True
    uses_store: bool = True

    def refusals(self) -> dict[int, str]:
        """Every status that is an error, with what it means."""
        found: dict[int, str] = {}
        if self.body is not None:
            found[BAD] = "The body is not valid JSON, or not of this shape."
            found[TOO_LARGE] = "The body is too long."
        if self.who and not self.unseen:
            found[UNAUTHENTICATED] = "A valid Holdfast token is required; one text for every cause."
            if not self.hidden and CALLER not in self.who:
                found[FORBIDDEN] = "This token may not do that."
        if "{id}" in self.path and self.must_exist:
            found[NOT_FOUND] = "There is no such workspace, or this token may not know of it."
        if self.is_counted:
            found[TOO_MANY] = "Too many requests of this caller."
        if self.uses_store:
            found[UNAVAILABLE] = "The store could not do it; nothing was changed."
        return dict(sorted((found | dict(self.errors)).items()))


def limit(default: int = 100) -> Parameter:
    """How many items a listing has at most."""
    schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": default}
    return Parameter(name="limit", text="How many at most, the newest first.", schema=schema)
