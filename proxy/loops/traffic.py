"""What happened so far, as plain numbers: the data path's requests, and everything that events tell.

Owns: the counters behind the metrics, and how many workspaces have counters of their own.
Knows nothing of: metric names, exposition, HTTP.

Counting a request costs about a microsecond: two look-ups, two additions and a bisection. Nothing here is ever reset;
whoever reads makes rates of it.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from proxy.clock import Stopwatch
from proxy.core.tally import Distribution
from proxy.telemetry import Event, EventName

OTHER = "_other"
"""The label of all workspaces beyond the limit; no id begins like that."""
NOBODY = "_none"
"""The label of requests to workspaces that there are not."""

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
ADDED_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
HOT = frozenset({EventName.REQUEST_FORWARDED, EventName.REQUEST_ANSWERED})
"""What is told of every request: `Traffic` counts it without an event."""


class Ended(StrEnum):
    """How a request on the data path ended.

    answered: the agent's answer was passed on. kept: answered from what is stored (a deferred task, a repeated send).
    deferred: put away, with a receipt. refused: the caller's fault. failed: the workspace's or the proxy's.
    broken: there was nobody to answer any more, or no whole answer.
    """

    ANSWERED = "answered"
    KEPT = "kept"
    DEFERRED = "deferred"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN = "broken"


class Labels:
    """Which workspaces have numbers of their own: the first `most` that are met; a removed one makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.own: set[str] = set()

    def of(self, workspace_id: str) -> str:
        """The label for a workspace's numbers."""
        if workspace_id not in self.own:
            if len(self.own) >= self._most:
                return OTHER
            self.own.add(workspace_id)
        return workspace_id

    def forget(self, workspace_id: str) -> None:
        """The workspace is gone."""
        self.own.discard(workspace_id)


class Traffic:
    """Counts requests on the data path. `requests` is by (workspace's label, how it ended, hundreds of the status).

    `known` finds a workspace, or None: ids that anybody may make up have no numbers of their own.
    """

    def __init__(self, labels: Labels, known: Callable[[str], object]) -> None:
        self.labels = labels
        self._known = known
        self.requests: dict[tuple[str, Ended, int], int] = {}
        self.seconds = Distribution(REQUEST_SECONDS)
        self.added = Distribution(ADDED_SECONDS)

    def count(self, workspace_id: str, ended: Ended, status: int, seconds: float) -> None:
        """A request has ended; `status`: 0 without an answer."""
        label = workspace_id
        if workspace_id not in self.labels.own:
            label = NOBODY if self._known(workspace_id) is None else self.labels.of(workspace_id)
        key = (label, ended, status // 100)
        try:
            self.requests[key] += 1
        except KeyError:
            self.requests[key] = 1
        self.seconds.observe(seconds)

    def forget(self, workspace_id: str) -> None:
        """The workspace is gone, and its numbers with it."""
        self.labels.forget(workspace_id)
        for key in [key for key in self.requests if key[0] == workspace_id]:
            del self.requests[key]


class Told:
    """Counts what events tell; a sink.

    `verdicts` is by (verdict, rule), `failures` of upstream calls by class, `restarts` by what became of the request
    for one, `cycles` by how they ended.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.events: Counter[EventName] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[str] = Counter()

    def wants(self, name: EventName) -> bool:
        """All but what is told of every request."""
        return name not in HOT

    def __call__(self, event: Event) -> None:
        """Count an event."""
        self.events[event.name] += 1
        if event.name is EventName.VERDICT or (event.name is EventName.WORKSPACE_STATUS and "verdict" in event.fields):
            self.verdicts[str(event.fields["verdict"]), event.rule or ""] += 1
        elif event.name is EventName.REQUEST_FAILED:
            self.failures[str(event.fields.get("class", ""))] += 1
        elif event.name is EventName.WORKSPACE_DELETED and event.workspace is not None:
            self._traffic.forget(event.workspace)


class LoopLag:
    """How late the event loop is: a tick that should come after `interval` seconds, and when it does come."""

    def __init__(self, watch: Stopwatch, interval: float) -> None:
        self._watch = watch
        self._last: float | None = None
        self.interval = interval
        self.seconds = Distribution(LAG_SECONDS)
        self.latest = 0.0

    async def tick(self) -> None:
        """The tick has come."""
        now = self._watch()
        if self._last is not None:
            self.latest = max(0.0, now - self._last - self.interval)
            self.seconds.observe(self.latest)
        self._last = now
