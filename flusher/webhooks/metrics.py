"""The metrics of `taximeter webhooks`."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest

from flusher.webhooks.receive import Outcome

_CODES: Final = ("signature_invalid", "stripe_account_changed", "stripe_unavailable", "database_unavailable")


class Metrics:
    """What came, and what became of it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "taximeter_webhooks_events",
            "Events of Stripe that were answered with 200, by what they did: applied, current, duplicate, ignored.",
            ["outcome"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "taximeter_webhooks_refusals",
            "Requests that were answered with anything else, by the code.",
            ["code"],
            registry=self.registry,
        )
        for outcome in Outcome:
            self.events.labels(outcome.value)
        for code in _CODES:
            self.refusals.labels(code)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
