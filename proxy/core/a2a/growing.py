"""Owns a task that grows with every event of its stream: what is there already is not read again for what is added.

Knows nothing of events and versions (`streaming`, `shapes`).

Theory of operation. An agent that tells its answer word by word adds ten thousand parts to one artifact, and ten
thousand words said as statuses make as long a history. So the lists that grow are kept open, as text to which text is
added, and become JSON only when somebody asks for the task. An artifact is read when it is touched first; the others
keep their bytes.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Raw

from proxy.core.a2a import members as m
from proxy.core.a2a import shapes
from proxy.core.a2a.members import Members

_LATER: Final = m.NULL
"""Keeps the place of a list among the members until it is written."""


class GrowingList:
    """The items of a JSON list, each as raw text."""

    __slots__ = ("_texts",)

    def __init__(self, value: Raw | None) -> None:
        self._texts: list[bytes] = []
        self.add(m.items(value) or ())

    def add(self, items: Iterable[Raw]) -> None:
        """Add items at the end."""
        self._texts.extend(map(bytes, items))

    def raw(self) -> Raw:
        """The list as JSON."""
        self._texts = [b",".join(self._texts)] if self._texts else []
        return Raw(b"[" + b"".join(self._texts) + b"]")

    def copy(self) -> "GrowingList":
        """Another one, which grows by itself."""
        made = GrowingList(None)
        made._texts = list(self._texts)
        return made


class _Artifact:
    """An artifact as it came, or open."""

    __slots__ = ("_members", "_parts", "_raw")

    def __init__(self, raw: Raw) -> None:
        self._raw: Raw | None = raw
        self._members: Members | None = None
        self._parts: GrowingList | None = None

    def name(self) -> str | None:
        return m.text(self._known().get("artifactId"))

    def add(self, more: Members) -> None:
        """Add another's parts; whatever else it says takes the place of what was said."""
        known = self._known()
        if self._parts is None:
            self._parts = GrowingList(known.get("parts"))
        self._parts.add(m.items(more.get("parts")) or ())
        self._members = known | more | {"parts": _LATER}
        self._raw = None

    def raw(self) -> Raw:
        if self._raw is None:
            parts = self._parts.raw() if self._parts is not None else _LATER
            self._raw = m.raw({**self._known(), "parts": parts})
        return self._raw

    def copy(self) -> "_Artifact":
        made = _Artifact(m.NULL)
        made._raw, made._members = self._raw, self._members
        made._parts = None if self._parts is None else self._parts.copy()
        return made

    def _known(self) -> Members:
        return shapes.known(m.members(self._raw) or {}) if self._members is None else self._members


class GrowingTask:
    """A task of either version; `members` is taken over."""

    __slots__ = ("_artifacts", "_history", "_members", "_own", "_places")

    def __init__(self, members: Members) -> None:
        self._members = members
        self._history: GrowingList | None = None
        self._artifacts: list[_Artifact] | None = None
        self._places: dict[str | None, int] = {}
        self._own: set[int] = set()

    @property
    def state(self) -> str:
        """The neutral state; see `shapes.state_of`."""
        return shapes.state_of(self._members)

    def take_status(self, status: Members, metadata: Members | None) -> None:
        """Another status; the message of the last one moves to the history."""
        task = self._members
        before = m.members(task.get("status")) or {}
        if m.members(before.get("message")) is not None and self.state != "submitted":
            # What Holdfast itself said while the request waited is no part of the conversation.
            if self._history is None:
                self._history = GrowingList(task.get("history"))
            self._history.add([before["message"]])
            task["history"] = _LATER
        task["status"] = m.raw(status)
        if metadata:
            task["metadata"] = m.raw((m.members(task.get("metadata")) or {}) | metadata)

    def take_artifact(self, artifact: Members, *, append: bool) -> None:
        """Another artifact, or the one of its id: in its place, or its parts added to it."""
        artifacts = self._opened()
        name = m.text(artifact.get("artifactId"))
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(artifacts)
            artifacts.append(_Artifact(m.raw(artifact)))
        elif append:
            if place not in self._own:
                artifacts[place] = artifacts[place].copy()
            artifacts[place].add(artifact)
        else:
            artifacts[place] = _Artifact(m.raw(artifact))
        self._own.add(place)

    def members(self) -> Members:
        """The task as members."""
        made = dict(self._members)
        if self._history is not None:
            made["history"] = self._history.raw()
        if self._artifacts is not None:
            made["artifacts"] = m.raw([artifact.raw() for artifact in self._artifacts])
        return made

    def copy(self) -> "GrowingTask":
        """Another one, which grows by itself; artifacts are shared until one of the two touches them."""
        made = GrowingTask(dict(self._members))
        made._history = None if self._history is None else self._history.copy()
        made._artifacts = None if self._artifacts is None else list(self._artifacts)
        made._places = dict(self._places)
        self._own = set()
        return made

    def _opened(self) -> list[_Artifact]:
        if self._artifacts is None:
            self._artifacts = [_Artifact(raw) for raw in m.items(self._members.get("artifacts")) or ()]
            for place, artifact in enumerate(self._artifacts):
                self._places.setdefault(artifact.name(), place)
            self._members["artifacts"] = _LATER
        return self._artifacts
