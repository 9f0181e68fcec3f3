"""Owns lists of tasks (A2A v1.0 section 3.1.4): what is asked for, and the page that two sources make together.

Knows nothing of stores or of agents: own tasks come in with the instant by which they are ordered, the agent's as the
page that it answered with.

Both sources are sorted by time, the newest first; a page takes from whichever is newer, and its token says how far each
has been read. A token that Holdfast did not make is the agent's own.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, quote, unquote

import msgspec
from msgspec import Raw, Struct

from proxy.core.a2a import members as m
from proxy.core.a2a import shapes
from proxy.core.a2a.call import Binding, Call, Version
from proxy.core.a2a.members import Members
from proxy.core.times import from_micros, micros, parse_rfc3339

USUAL_SIZE: Final = 50
MOST: Final = 100
"""Tasks of a page, where none is asked for; and the most that may be (A2A v1.0 section 3.1.4)."""

_MARK: Final = "hf."
_TRUE: Final = {"true": True, "false": False}
_NAMES: Final = {
    "context_id": "contextId",
    "page_size": "pageSize",
    "page_token": "pageToken",
    "history_length": "historyLength",
    "include_artifacts": "includeArtifacts",
    "status_timestamp_after": "statusTimestampAfter",
}
_SNAKE: Final = {new: old for old, new in _NAMES.items()}


class BadList(ValueError):  # noqa: N818 - what is wrong is the list that was asked for
    """A list cannot be asked for so; the text says what is wrong."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Place(Struct, frozen=True, array_like=True):
    """How far both sources have been read.

    `own`: (microseconds, sequence) of the last own task, None before the first; `own_over`: there are no more.
    `theirs`: the agent's token of the page that comes next, of which `skip` were taken; None when there are no more.
    """

    own: tuple[_Count, _Count] | None = None
    own_over: bool = False
    theirs: str | None = ""
    skip: _Count = 0


_PLACE: Final = msgspec.json.Decoder(Place)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListWish:
    """What a list is asked for. `state` is a neutral one; `token` as it came; `place` is what a token of ours says."""

    context_id: str | None = None
    state: str | None = None
    since: datetime | None = None
    size: int = USUAL_SIZE
    token: str = ""
    place: Place = field(default_factory=Place)
    history_length: int | None = None
    artifacts: bool = False

    @property
    def is_ours(self) -> bool:
        """Its token is one that Holdfast gave."""
        return self.token.startswith(_MARK)

    def takes(self, task: Members) -> bool:
        """Whether a task is one of those that are asked for."""
        if self.context_id and m.text(task.get("contextId")) != self.context_id:
            return False
        if self.state is not None and shapes.state_of(task) != self.state:
            return False
        at = status_time(task)
        return self.since is None or (at is not None and at >= self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """An own task of a page, under the caller's ids, and its place in the order: (microseconds, sequence)."""

    key: tuple[int, int]
    task: Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """The agent's page. `dropped` are positions of tasks that are listed as own ones."""

    tasks: Sequence[Members]
    next_token: str
    total: int
    dropped: frozenset[int] = frozenset()


def list_wish(call: Call, tail: str) -> ListWish:
    """What a list is asked for; BadList for what no list can be."""
    if call.binding is Binding.JSONRPC:
        params = m.members((m.document(call.body) or {}).get("params")) or {}
        said = {_NAMES.get(name, name): _plain(value) for name, value in params.items()}
    else:
        pairs = parse_qsl(tail.partition("?")[2], keep_blank_values=True)
        said = {_NAMES.get(name, name): value for name, value in pairs}
    token = _text(said, "pageToken")
    return ListWish(
        context_id=_text(said, "contextId") or None,
        state=_state(said.get("status")),
        since=_instant(_text(said, "statusTimestampAfter")),
        size=_size(said.get("pageSize")),
        token=token,
        place=_place(token),
        history_length=_number(said.get("historyLength"), "historyLength"),
        artifacts=_flag(said.get("includeArtifacts")),
    )


def list_request(call: Call, tail: str, place: Place, size: int) -> tuple[bytes, str]:
    """Body and tail with which the agent is asked for the page that comes next."""
    wanted: dict[str, Any] = {"pageSize": size, "pageToken": place.theirs or ""}
    if call.binding is Binding.JSONRPC:
        document = m.document(call.body) or {}
        params = m.members(document.get("params")) or {}
        for name, value in wanted.items():
            params.pop(_SNAKE[name], None)
            params[name] = m.raw(value)
        if not place.theirs:
            del params["pageToken"]
        document["params"] = m.raw(params)
        return m.encode(document), tail
    path, _, query = tail.partition("?")
    kept = [pair for pair in query.split("&") if pair and _query_name(pair) not in wanted]
    kept.append(f"pageSize={size}")
    if place.theirs:
        kept.append(f"pageToken={quote(place.theirs, safe='')}")
    return call.body, f"{path}?{'&'.join(kept)}"


def listed_tasks(body: bytes) -> Theirs | None:
    """The agent's page in its answer; None for an error and for what is no page."""
    document = m.document(body) or {}
    result = (m.members(document.get("result")) or {}) if "jsonrpc" in document else document
    listed = m.items(result.get("tasks"))
    if "error" in document or (listed is None and not {"nextPageToken", "totalSize", "pageSize"} & result.keys()):
        return None
    tasks = [m.members(item) or {} for item in listed or ()]
    total = m.whole(result.get("totalSize"))
    token = m.text(result.get("nextPageToken")) or ""
    return Theirs(tasks=tasks, next_token=token, total=len(tasks) if total is None else total)


def page(own: Sequence[Own], more_own: tuple[int, int] | None, theirs: Theirs | None, wish: ListWish) -> list[Any]:
    """Merge two sources: [the tasks of the page, the place behind it or None, how many there are at least].

    `own` are those that come next; `more_own` is the key up to which own tasks were looked at while there may be more.
    `theirs` is None where the agent has no (more) pages to give.
    """
    place, size = wish.place, wish.size
    listed = theirs.tasks if theirs is not None else ()
    at_own, at_theirs, taken = 0, place.skip if theirs is not None else 0, list[Members]()
    while len(taken) < size:
        if theirs is not None and at_theirs >= len(listed) and theirs.next_token:
            break  # what the agent's next page holds may be newer than our next task
        if theirs is not None and at_theirs in theirs.dropped:
            at_theirs += 1
            continue
        has_own, has_theirs = at_own < len(own), at_theirs < len(listed)
        if not has_own and not has_theirs:
            break
        if has_own and (not has_theirs or own[at_own].key[0] >= micros(status_time(listed[at_theirs]) or _BEGINNING)):
            taken.append(own[at_own].task)
            at_own += 1
        else:
            taken.append(listed[at_theirs])
            at_theirs += 1
    behind = _behind(place, own, at_own, more_own, theirs, at_theirs)
    taken.sort(key=lambda task: status_time(task) or _BEGINNING, reverse=True)
    total = (theirs.total - len(theirs.dropped) if theirs is not None else 0) + len(own) + (more_own is not None)
    return [taken, behind, max(total, len(taken))]


def list_answer(call: Call, tasks: Sequence[Members], behind: Place | None, wish: ListWish, total: int) -> bytes:
    """The answer: a page in the caller's binding."""
    result = m.encode(
        {"tasks": list(tasks), "nextPageToken": _token(behind), "pageSize": wish.size, "totalSize": total}
    )
    if call.binding is not Binding.JSONRPC:
        return result
    return b'{"jsonrpc":"2.0","id":' + call.rpc_id + b',"result":' + result + b"}"


def listed_task(task_json: bytes, version: Version, wish: ListWish) -> Members:
    """A kept task as lists of v1.0 show it: with as much history as was asked for, and artifacts only if they were."""
    task = shapes.to_version(m.members(task_json) or {}, version, Version.V10)
    if not wish.artifacts:
        task.pop("artifacts", None)
    shapes.cut_history(task, wish.history_length)
    return task


def status_time(task: Members) -> datetime | None:
    """When a task's status was set, as it says itself."""
    written = m.text((m.members(task.get("status")) or {}).get("timestamp"))
    try:
        return parse_rfc3339(written) if written else None
    except ValueError:
        return None


_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _behind(  # noqa: PLR0917 - made in one place
    place: Place,
    own: Sequence[Own],
    at_own: int,
    more_own: tuple[int, int] | None,
    theirs: Theirs | None,
    at_theirs: int,
) -> Place | None:
    """The place behind a page; None when both sources have been read."""
    last_own = own[at_own - 1].key if at_own else place.own
    own_over = at_own >= len(own) and more_own is None
    if at_own >= len(own) and more_own is not None:
        last_own = more_own
    token, skip = place.theirs, at_theirs
    if theirs is None:
        token, skip = None, 0
    elif at_theirs >= len(theirs.tasks):
        token, skip = theirs.next_token or None, 0
    if own_over and token is None:
        return None
    return Place(last_own, own_over, token, skip)


def _token(place: Place | None) -> str:
    if place is None:
        return ""
    return _MARK + base64.urlsafe_b64encode(m.encode(place)).decode().rstrip("=")


def _place(token: str) -> Place:
    if not token:
        return Place()
    if not token.startswith(_MARK):
        return Place(own_over=True, theirs=token)  # the agent gave it, when there was nothing to add
    said = token.removeprefix(_MARK)
    try:
        found = _PLACE.decode(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        if found.own is not None:
            from_micros(found.own[0])
    except (*m.UNREADABLE, OverflowError):
        raise BadList("pageToken is none that was given out") from None
    return found


def _plain(value: Raw) -> Any:
    try:
        return msgspec.json.decode(value)
    except m.UNREADABLE:
        return None


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise BadList(f"{name} is no text")


def _number(value: Any, name: str) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise BadList(f"{name} is no number")


def _size(value: Any) -> int:
    size = _number(value, "pageSize")
    if size is None:
        return USUAL_SIZE
    if not 0 < size <= MOST:
        raise BadList(f"pageSize is 1 to {MOST}")
    return size


def _flag(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.lower() in _TRUE:
        return _TRUE[value.lower()]
    raise BadList("includeArtifacts is true or false")


def _state(value: Any) -> str | None:
    """A neutral state; the unspecified one asks for all."""
    if value is None or value in ("", 0, "0", "TASK_STATE_UNSPECIFIED"):  # no set: it may be a list or an object
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    state = shapes.state_of({"status": m.raw({"state": value})})
    if state == "unknown":
        raise BadList("status is no task state")
    return state


def _instant(written: str) -> datetime | None:
    try:
        return parse_rfc3339(written) if written else None
    except ValueError:
        raise BadList("statusTimestampAfter is no RFC 3339 instant") from None


def _query_name(pair: str) -> str:
    name = unquote(pair.partition("=")[0])
    return _NAMES.get(name, name)
