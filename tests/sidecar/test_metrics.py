"""Metrics: each declared once, documented, and without a label that grows with the users."""

import re
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from sidecar.metrics import EVENTS_BUCKETS, Gauges, Metrics, descriptions

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
    one.events_taken("accepted")

    assert other.registry.get_sample_value("taximeter_events_total", {"result": "accepted"}) is None


def test_what_is_counted_is_scraped_as_prometheus_counts_it() -> None:
    # Given the same values in a histogram of Prometheus
    metrics, theirs = Metrics(), CollectorRegistry()
    peer = Histogram("taximeter_request_events", "Events in a request.", buckets=EVENTS_BUCKETS, registry=theirs)
    for value in (1, 1, 2, 3, 10_000, 10_001):
        metrics.request_events.observe(value)
        peer.observe(value)
    metrics.events_taken("duplicate", 3)
    metrics.events_taken("duplicate")
    metrics.request_answered(HTTPStatus.ACCEPTED, "journaled")
    metrics.batch_answered("applied")

    # Then each of its samples is one of ours
    ours = metrics.exposition().decode().splitlines()
    samples = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert set(samples) <= set(ours)
    # and so are the counters
    assert 'taximeter_events_total{result="duplicate"} 4.0' in ours
    assert 'taximeter_requests_total{code="journaled",status="202"} 1.0' in ours
    assert 'taximeter_stream_batches_total{code="applied"} 1.0' in ours
