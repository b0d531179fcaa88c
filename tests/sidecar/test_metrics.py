"""Metrics: each declared once, documented, and without a label that grows with the users."""

import re
from pathlib import Path

from sidecar.metrics import Gauges, Metrics, descriptions

README = Path(__file__).parents[2] / "sidecar" / "README.md"


def test_the_page_lists_every_metric() -> None:
    rows = re.findall(r"^\| `(taximeter_[a-z_]+)` \| ([a-z]+) \|", README.read_text("utf-8"), re.MULTILINE)

    assert rows == [(metric.name, metric.kind) for metric in descriptions()]


def test_every_metric_says_what_it_means() -> None:
    assert [metric.name for metric in descriptions() if not metric.doc.endswith(".")] == []


def test_gauges_are_read_when_somebody_looks() -> None:
    # Given gauges that follow a value
    value = 1.0
    metrics = Metrics()
    metrics.watch(Gauges(*[lambda: value] * len(Gauges._fields)))
    assert metrics.registry.get_sample_value("taximeter_journal_bytes") == 1

    # When it changes, then what is scraped has changed
    value = 2.0
    assert b"taximeter_journal_bytes 2.0" in metrics.exposition()


def test_two_sidecars_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.events.labels("accepted").inc()

    assert other.registry.get_sample_value("taximeter_events_total", {"result": "accepted"}) is None
