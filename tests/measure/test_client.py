"""The measurement of the client runs and says something about each way; figures are not judged here."""

from tests.measure.client import run


def test_both_ways_are_measured_and_every_event_arrives() -> None:
    report = run(2_000)
    assert 0 < report["call_cpu_us_alone"] < 1000
    for way in ("http", "stream"):
        assert report[way]["events_per_s"] > 100
        assert report[way]["sidecar_cpu_us_per_event"] >= 0
