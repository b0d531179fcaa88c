"""Every metric of the flusher, declared once, in a registry of its own. No label ever holds a user or an event type."""

import time
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from flusher.drain import Drained
from flusher.retention import Dropped
from flusher.watch import Seen
from flusher.worker import Observer
from sidecar.contract.codes import TaximeterError

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SERVERS: Final = {"database_unavailable": "postgres", "redis_unavailable": "redis"}
_OUTCOMES: Final = ("inserted", "duplicate", "conflict", "quarantined")


class Metrics(Observer):
    """The metrics of one flusher, fed by its worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "taximeter_flusher_events",
            "Events that were taken from Redis by what became of them in PostgreSQL: inserted, duplicate, conflict, "
            "quarantined.",
            ["outcome"],
            registry=self.registry,
        )
        self.voided = Counter(
            "taximeter_flusher_voided_events",
            "Events that were taken out of usage because a void cancels them.",
            registry=self.registry,
        )
        self.epochs = Counter("taximeter_flusher_epochs", "Epochs that were drained.", registry=self.registry)
        self.discrepancies = Counter(
            "taximeter_flusher_discrepancies",
            "Counters that did not agree with the stream in a drain. Any is an alarm: see `taximeter verify`.",
            registry=self.registry,
        )
        self.generations = Counter(
            "taximeter_flusher_generations",
            "Generations that were opened because what Redis held did not match PostgreSQL.",
            registry=self.registry,
        )
        self.dropped_claims = Counter(
            "taximeter_flusher_dropped_claims",
            "Claims that were dropped because they are older than they have to be kept.",
            registry=self.registry,
        )
        self.dropped_events = Counter(
            "taximeter_flusher_dropped_events",
            "Single events that were dropped with their month because they are older than they have to be kept.",
            registry=self.registry,
        )
        self.cycle_seconds = Histogram(
            "taximeter_flusher_cycle_seconds",
            "A cycle over all shards that ended without an error.",
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.last_cycle = Gauge(
            "taximeter_flusher_last_cycle_timestamp_seconds",
            "When the last cycle without an error ended, in seconds since 1970; 0 before the first.",
            registry=self.registry,
        )
        self.errors = Counter(
            "taximeter_flusher_errors",
            "Cycles, and attempts to start, that ended with an error, by its code.",
            ["code"],
            registry=self.registry,
        )
        for outcome in _OUTCOMES:
            self.events.labels(outcome)
        self._watch_servers()

    def _watch_servers(self) -> None:
        self.redis_memory = Gauge(
            "taximeter_flusher_redis_memory_bytes",
            "Memory that Redis uses, of a cluster the fullest server; sidecars stop sending before it is full.",
            registry=self.registry,
        )
        self.redis_memory_max = Gauge(
            "taximeter_flusher_redis_memory_bytes_max",
            "That server's maxmemory; 0 where it has no limit.",
            registry=self.registry,
        )
        self.undrained = Gauge(
            "taximeter_flusher_undrained_batches",
            "Batches in Redis that PostgreSQL does not have yet, over all shards.",
            registry=self.registry,
        )
        self.unreachable = Gauge(
            "taximeter_flusher_unreachable_seconds",
            "For how long a server has not answered: postgres, redis; 0 while it does.",
            ["server"],
            registry=self.registry,
        )
        self._silent_since: dict[str, float] = {}
        for server in _SERVERS.values():
            self.unreachable.labels(server).set_function(partial(self._silent_s, server))

    def drained(self, drained: Drained) -> None:
        """Count what became of a shard's events."""
        counts = (drained.events, drained.duplicates, drained.conflicts, drained.quarantined)
        for outcome, count in zip(_OUTCOMES, counts, strict=True):
            self.events.labels(outcome).inc(count)
        self.voided.inc(drained.voided)
        self.epochs.inc(drained.epochs)
        self.discrepancies.inc(drained.discrepancies)

    def generation_opened(self, shard: int) -> None:
        """Count a generation."""
        del shard  # shards would be a label nobody needs: the log names it
        self.generations.inc()

    def _silent_s(self, server: str) -> float:
        since = self._silent_since.get(server)
        return 0.0 if since is None else time.monotonic() - since

    def looked(self, seen: Seen) -> None:
        """Note how full Redis is; it answers."""
        self._silent_since.pop("redis", None)
        self.redis_memory.set(seen.memory_bytes)
        self.redis_memory_max.set(seen.memory_bytes_max)
        self.undrained.set(seen.batches)

    def cleaned(self, dropped: Dropped) -> None:
        """Count what was dropped."""
        self.dropped_claims.inc(dropped.claims)
        self.dropped_events.inc(dropped.events)

    def cycle_ended(self, took_s: float) -> None:
        """Note a cycle without an error."""
        self._silent_since.clear()
        self.cycle_seconds.observe(took_s)
        self.last_cycle.set(time.time())

    def failed(self, error: TaximeterError) -> None:
        """Count an error."""
        self.errors.labels(error.code).inc()
        server = _SERVERS.get(error.code)
        if server is not None:
            self._silent_since.setdefault(server, time.monotonic())

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
