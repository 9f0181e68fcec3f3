"""Which workspace a request is for, by its target and by the host that it names.

Owns: a workspace's own host name, and what below it is Holdfast's all the same.
Knows nothing of: who calls, what the request says.

Some clients insist on an agent at the root of an origin. A workspace may therefore have a host name of its own: every
target there is its agent's, as `/workspaces/{id}/a2a` is elsewhere, except what begins with `/workspaces/` (receipts
lead there) and, where cards are signed, the set of keys. Nothing else changes: the same tokens, rules and answers.
"""

import functools
from collections.abc import Mapping

PREFIX = "/workspaces/"
ROOT = "/"
LONGEST_KEPT = 512
"""Characters up to which what was worked out is remembered: strangers choose these texts."""


class Places:
    """Finds the place of a request. `hosts` are workspace ids by host name; `ours` are paths that no agent has."""

    def __init__(self, hosts: Mapping[str, str], ours: frozenset[str] = frozenset()) -> None:
        self._hosts = hosts
        self._ours = ours

    @property
    def named(self) -> bool:
        """Some workspace has a host name; otherwise nobody needs to read the field."""
        return bool(self._hosts)

    def find(self, target: str, host: str | None) -> tuple[str, str] | None:
        """Return (workspace id, raw tail with its query) of a request for an agent, None for any other."""
        if not self._hosts:
            return split(target)
        workspace_id = self._hosts.get(host_name(host))
        if workspace_id is None or target.startswith(PREFIX):
            return split(target)
        path, mark, query = target.partition("?")
        if path in self._ours or not path.startswith(ROOT):
            return None
        return workspace_id, (path if path != ROOT else "") + mark + query


def host_name(host: str | None) -> str:
    """The name in a Host field (RFC 9110 section 7.2), without its port and in lower case."""
    name, colon, port = (host or "").rpartition(":")
    return (name if colon and port.isdigit() else host or "").rstrip(".").lower()


def is_rooted(target: str) -> bool:
    """The request came by the workspace's own host: the agent's root is the origin's."""
    return not target.startswith(PREFIX)


def split(raw_path: str) -> tuple[str, str] | None:
    """Return (workspace id, raw tail with its query) of a data path, None for any other path."""
    return _split_again(raw_path) if len(raw_path) <= LONGEST_KEPT else _split(raw_path)


def _split(raw_path: str) -> tuple[str, str] | None:
    if not raw_path.startswith(PREFIX):
        return None
    workspace_id, slash, rest = raw_path[len(PREFIX) :].partition("/")
    if not slash or not rest.startswith("a2a"):
        return None
    tail = rest[3:]
    if tail and tail[0] not in "/?":
        return None
    return workspace_id.replace("%3A", ":").replace("%3a", ":"), tail


_split_again = functools.lru_cache(maxsize=1024)(_split)
