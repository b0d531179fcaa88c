"""Every metric of the sidecar, declared once, in a registry of its own. No label ever holds a user or an event type.

What is counted with every request is counted in plain ints by the event loop, which scrapes too: the locks and labels
of Prometheus's own counters cost more than the rest of a small request's bookkeeping.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
EVENTS_BUCKETS: Final = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class Gauges(NamedTuple):
    """What is read when somebody looks: functions that return the value now."""

    ready: Callable[[], float]
    journal_bytes: Callable[[], float]
    journal_bytes_max: Callable[[], float]
    redis_lag_batches: Callable[[], float]
    redis_memory_ratio: Callable[[], float]
    redis_shards_connected: Callable[[], float]
    sending_paused: Callable[[], float]
    clock_skew_seconds: Callable[[], float]
    requests_in_flight: Callable[[], float]
    waiting_bytes: Callable[[], float]
    connections: Callable[[], float]


class Counts(Collector):
    """A counter with labels."""

    def __init__(self, name: str, doc: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._about = (name, doc)
        self._labels = labels
        self._values: dict[tuple[object, ...], int] = {}
        registry.register(self)

    def add(self, labels: tuple[object, ...], count: int = 1) -> None:
        """Count under these values of the labels."""
        self._values[labels] = self._values.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        """Give what was counted to Prometheus."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric([str(label) for label in labels], value)
        yield family


class Distribution(Collector):
    """A histogram; `buckets` are upper bounds, ascending."""

    def __init__(self, name: str, doc: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._about = (name, doc)
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._buckets, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """Give what was counted to Prometheus."""
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(*self._about)
        family.add_metric([], buckets, self._sum)
        yield family


class Metrics:
    """The metrics of one sidecar."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = Counts(
            "taximeter_events",
            "Events by what became of them: accepted, journaled (accepted, Redis has not said), duplicate, conflict, "
            "or the code of the rejection.",
            ["result"],
            self.registry,
        )
        self._voids = Counts(
            "taximeter_voids",
            "Voids of events by what became of them: accepted, journaled, duplicate, conflict, or the code of the "
            "rejection.",
            ["result"],
            self.registry,
        )
        self._requests = Counts(
            "taximeter_requests",
            "Requests by HTTP status and by outcome: applied, journaled, ok, or the code of the problem.",
            ["status", "code"],
            self.registry,
        )
        self._stream_batches = Counts(
            "taximeter_stream_batches",
            "Batches on the stream socket by outcome: applied, journaled, or the code of the refusal.",
            ["code"],
            self.registry,
        )
        self.request_seconds = Distribution(
            "taximeter_request_seconds",
            "From a request's headers to its answer, for requests that bring events.",
            _SECONDS_BUCKETS,
            self.registry,
        )
        self.request_events = Distribution(
            "taximeter_request_events", "Events in a request.", EVENTS_BUCKETS, self.registry
        )
        self._gauges = {
            "ready": self._gauge("taximeter_ready", "1 while events are accepted."),
            "journal_bytes": self._gauge("taximeter_journal_bytes", "Bytes of the journal on disk."),
            "journal_bytes_max": self._gauge("taximeter_journal_bytes_max", "Bytes that the journal may hold."),
            "redis_lag_batches": self._gauge(
                "taximeter_redis_lag_batches", "Journaled batches that Redis has not confirmed, over all shards."
            ),
            "redis_memory_ratio": self._gauge(
                "taximeter_redis_memory_ratio",
                "Redis's used memory, of its maxmemory; 0 without one, or while it is not known.",
            ),
            "redis_shards_connected": self._gauge(
                "taximeter_redis_shards_connected", "Shards whose batches flow to Redis."
            ),
            "sending_paused": self._gauge(
                "taximeter_sending_paused", "1 while batches wait in the journal because Redis has no memory to spare."
            ),
            "clock_skew_seconds": self._gauge(
                "taximeter_clock_skew_seconds",
                "How far this machine's clock is ahead of Redis's; more than 1 is wrong.",
            ),
            "requests_in_flight": self._gauge("taximeter_requests_in_flight", "Requests that are being worked on."),
            "waiting_bytes": self._gauge("taximeter_waiting_bytes", "Bytes of bodies that are read or worked on."),
            "connections": self._gauge("taximeter_connections", "Open connections."),
        }

    def events_taken(self, result: str, count: int = 1) -> None:
        """Count events by what became of them."""
        self._events.add((result,), count)

    def voids_taken(self, result: str, count: int = 1) -> None:
        """Count voids by what became of them."""
        self._voids.add((result,), count)

    def request_answered(self, status: int, code: str) -> None:
        """Count a request by its answer."""
        self._requests.add((int(status), code))

    def batch_answered(self, code: str) -> None:
        """Count a batch of the stream socket by its answer."""
        self._stream_batches.add((code,))

    def _gauge(self, name: str, doc: str) -> Gauge:
        return Gauge(name, doc, registry=self.registry)

    def watch(self, gauges: Gauges) -> None:
        """Read these gauges from now on."""
        for name, read in gauges._asdict().items():
            self._gauges[name].set_function(read)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class MetricDescription(NamedTuple):
    """A metric's name as it is scraped, its kind, and its meaning."""

    name: str
    kind: str
    doc: str


def descriptions() -> tuple[MetricDescription, ...]:
    """Return every metric, by name."""
    families = Metrics().registry.collect()
    return tuple(
        sorted(
            MetricDescription(
                family.name + ("_total" if family.type == "counter" else ""), family.type, family.documentation
            )
            for family in families
        )
    )
