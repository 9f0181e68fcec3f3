"""`GET /metrics`: what Holdfast counts, for Prometheus.

Owns: the names, help texts and labels of the metrics, and their exposition.
Knows nothing of: how a number came to be (`loops.traffic`, the routing table, the store).

The numbers are read when somebody asks; nobody keeps a second copy of them. Names follow the conventions of Prometheus:
base units, `_total` for what only grows. Each family is on the page docs/metrics.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy.clock import Now
from proxy.core.lifecycle import Status
from proxy.core.tally import Distribution
from proxy.core.tokens import TokenKind
from proxy.loops.event_ring import EventRing
from proxy.loops.routing import Route, Routing
from proxy.loops.traffic import Labels, LoopLag, Told, Traffic
from proxy.telemetry import EventName, Telemetry
from proxy.web.auth import Auth
from proxy.web.operations import ADMIN, READ, Answer, Operation

PREFIX = "holdfast_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Where the numbers are. `commits`: seconds and units of work of the store's commits, where it commits at all."""

    traffic: Traffic
    told: Told
    lag: LoopLag
    ring: EventRing
    routing: Routing
    telemetry: Telemetry
    version: str
    commits: tuple[Distribution, Distribution] | None = None


class Metrics:
    """Serves the exposition to the admin and to `read` tokens."""

    def __init__(self, *, counts: Counts, auth: Auth, now: Now) -> None:
        self._auth = auth
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Holdfast(counts, now))
        ProcessCollector(registry=self._registry)

    def routes(self) -> list[web.RouteDef]:
        """What this door serves."""
        return [web.get("/metrics", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /metrics`: Prometheus's text, or OpenMetrics where `Accept` asks for it."""
        self._auth.require(request, TokenKind.READ)
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=encode(self._registry), headers={hdrs.CONTENT_TYPE: content_type})


class Holdfast(Collector):
    """Reads the numbers, family by family."""

    def __init__(self, counts: Counts, now: Now) -> None:
        self._counts = counts
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        yield from self._requests()
        yield from self._workspaces()
        yield from self._decisions()
        yield from self._deferrals()
        yield from self._inside()

    def _requests(self) -> Iterator[Metric]:
        traffic = self._counts.traffic
        requests = CounterMetricFamily(
            PREFIX + "requests",
            "Requests on the data path, by how they ended.",
            labels=["workspace", "outcome", "code"],
        )
        for (workspace, ended, hundreds), count in sorted(traffic.requests.items()):
            requests.add_metric([workspace, ended.value, f"{hundreds}xx" if hundreds else "none"], count)
        yield requests
        yield _histogram(
            "request_seconds",
            "From a request's arrival to its answer handed over; streams to their end.",
            traffic.seconds,
        )
        yield _histogram(
            "request_added_seconds",
            "What Holdfast adds to an agent's answer that is no stream: the time not spent waiting for it.",
            traffic.added,
        )
        yield _counter(
            "upstream_failures",
            "Calls to agents that failed, by what is known of them.",
            "class",
            self._counts.told.failures,
        )

    def _workspaces(self) -> Iterator[Metric]:
        routes = list(self._counts.routing)
        statuses = Counter(route.workspace.status for route in routes)
        yield _gauge(
            "workspaces", "Workspaces by status.", "status", {status.value: statuses[status] for status in Status}
        )
        now = self._now()

        def sign_age(route: Route) -> float | None:
            last = route.signs.last_sign_at
            return None if last is None else max(0.0, (now - last).total_seconds())

        labels = self._counts.traffic.labels
        for name, text, value, together in (
            ("workspace_serving", "Workspaces to which a request is dialled now.", _serving, sum),
            ("workspace_sign_of_life_age_seconds", "Since the last sign of life; of others the oldest.", sign_age, max),
            ("calls_in_flight", "Calls to agents that are open, replays included.", _in_flight, sum),
            ("queue_depth", "Deferrals that wait or are being delivered.", _depth, sum),
            ("queue_bytes", "Bytes of those deferrals' bodies.", _bytes, sum),
        ):
            yield _gauge(name, text, "workspace", _by_label(routes, labels, value, together))

    def _decisions(self) -> Iterator[Metric]:
        told = self._counts.told
        verdicts = CounterMetricFamily(
            PREFIX + "verdicts",
            "Evaluations that ended in a verdict, by the rule that gave it.",
            labels=["verdict", "rule"],
        )
        for (verdict, rule), count in sorted(told.verdicts.items()):
            verdicts.add_metric([verdict, rule], count)
        yield verdicts
        yield _counter("restarts", "Restarts asked for, by what became of it.", "answer", _told(told, RESTARTS))
        yield _counter("restart_cycles", "Restarts carried out, by how they ended.", "end", _told(told, CYCLES))

    def _deferrals(self) -> Iterator[Metric]:
        told = self._counts.told
        yield _counter("deferrals", "What became of deferrals.", "transition", _told(told, TRANSITIONS))

    def _inside(self) -> Iterator[Metric]:
        counts = self._counts
        yield _counter(
            "events", "Events by name.", "event", {str(name): count for name, count in counts.told.events.items()}
        )
        yield _counter(
            "event_sink_failures",
            "Events that a log or another sink could not take.",
            "sink",
            counts.telemetry.failures,
        )
        yield _plain("event_stream_readers", "Readers of GET /events.", len(counts.ring))
        gaps = CounterMetricFamily(PREFIX + "event_stream_gaps", "Readers of GET /events that were too slow.")
        gaps.add_metric([], counts.ring.gaps)
        yield gaps
        yield _histogram("event_loop_lag_seconds", "How late a tick of the event loop came.", counts.lag.seconds)
        if counts.commits is not None:
            seconds, units = counts.commits
            yield _histogram("store_commit_seconds", "One commit of the database, its sync included.", seconds)
            yield _histogram("store_commit_units", "Units of work in one commit.", units)
        build = GaugeMetricFamily(PREFIX + "build_info", "Always 1; the label says what runs.", labels=["version"])
        build.add_metric([counts.version], 1)
        yield build


RESTARTS: Mapping[EventName, str] = {
    EventName.RESTART_SCHEDULED: "scheduled",
    EventName.RESTART_COALESCED: "coalesced",
    EventName.RESTART_DEBOUNCED: "debounced",
    EventName.RESTART_BACKOFF: "backoff",
    EventName.RESTART_ABANDONED: "abandoned",
    EventName.RESTART_ANNOUNCED: "announced",
}
CYCLES: Mapping[EventName, str] = {
    EventName.RESTART_FINISHED: "finished",
    EventName.RESTART_FAILED: "failed",
}
TRANSITIONS: Mapping[EventName, str] = {
    name: name.removeprefix("deferral.") for name in EventName if name.startswith("deferral.")
}


def _told(told: Told, names: Mapping[EventName, str]) -> dict[str, float]:
    """All of them from the start, those at zero too: a rate needs a first value."""
    return {label: told.events[name] for name, label in names.items()}


def _serving(route: Route) -> float:
    return float(route.serving)


def _in_flight(route: Route) -> float:
    return route.busy


def _depth(route: Route) -> float:
    return route.size.rows


def _bytes(route: Route) -> float:
    return route.size.bytes


def _by_label(
    routes: list[Route],
    labels: Labels,
    value: Callable[[Route], float | None],
    together: Callable[[list[float]], float],
) -> dict[str, float]:
    """One value per workspace with a label of its own; those without one are taken together."""
    found: dict[str, list[float]] = {}
    for route in routes:
        one = value(route)
        if one is not None:
            found.setdefault(labels.of(route.id), []).append(one)
    return {label: together(values) for label, values in found.items()}


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _plain(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _histogram(name: str, text: str, distribution: Distribution) -> Metric:
    buckets = [(_bound(bound), float(count)) for bound, count in distribution.cumulative()]
    family = HistogramMetricFamily(PREFIX + name, text)
    family.add_metric([], buckets, sum_value=distribution.total)
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else f"{float(bound)!r}"


OPERATIONS = (
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        text="What Holdfast counts, for Prometheus.",
        tag="proxy",
        who=(ADMIN, READ),
        uses_store=False,
        answers={200: Answer(text="Prometheus's text, or OpenMetrics where `Accept` asks for it.", media="text/plain")},
    ),
)
