"""The client library without a sidecar: what a call checks by itself, and what stays bounded when nobody answers."""

import socket
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sidecar.client import Meter, QueueFullError, Rejected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"units": 1.5}, "units: expected an int, a Decimal or a str, got float"),
        ({"units": True}, "units: .* got bool"),
        ({"units": None}, "units: .* got NoneType"),
        ({"user_id": 7}, "user_id: expected a str, got int"),
        ({"event_type": b"x"}, "event_type: expected a str, got bytes"),
        ({"id": 7}, "id: expected a str, got int"),
        ({"source": 7}, "source: expected a str, got int"),
        ({"timestamp": 1_753_090_461}, "timestamp: expected a datetime or a str, got int"),
        ({"timestamp": datetime.now(UTC).replace(tzinfo=None)}, "timestamp: .* got a naive one"),
        ({"properties": {"a": object()}}, "object"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_of_another_type_is_a_type_error_at_the_call(arguments: dict[str, Any], named: str) -> None:
    with Meter("unix:///nowhere") as meter:
        with pytest.raises(TypeError, match=named):
            meter.track(**{"user_id": "cus_1", "event_type": "api_call", **arguments})
        assert meter.stats.waiting == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"user_id": "\ud800"},
        {"units": 1 << 70},
        {"properties": {"a": 1 << 70}},
        {"properties": {"a": "x" * 70_000}},
        {"properties": {"a": Decimal("0.1234567890123456789012")}},
    ],
    ids=["surrogate", "units", "property", "size", "decimal"],
)
def test_a_value_that_can_not_be_written_is_rejected_and_raises_nothing(arguments: dict[str, Any]) -> None:
    rejected: list[Rejected] = []
    with Meter("unix:///nowhere", on_rejected=rejected.append) as meter:
        meter.track(**{"user_id": "cus_1", "event_type": "api_call", **arguments})
        assert (meter.stats.rejected, meter.stats.waiting) == (1, 0)
    assert [each.code for each in rejected] == ["event_invalid"]


def silent(path: Path) -> socket.socket:
    """Returns a server that takes connections and never says a word."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    return server


@pytest.mark.parametrize("scheme", ["unix", "stream"])
def test_with_a_sidecar_that_never_answers_calls_stay_quick_and_memory_bounded(scheme: str, tmp_path: Path) -> None:
    with silent(tmp_path / "s.sock"):
        meter = Meter(f"{scheme}://{tmp_path / 's.sock'}", queue_events_max=50, answer_timeout_s=30)
        took_s: list[float] = []
        for _ in range(500):
            began_at = time.perf_counter()
            meter.track("cus_1", "api_call")
            took_s.append(time.perf_counter() - began_at)
        assert (meter.stats.waiting, meter.stats.dropped) == (50, 450)
        assert sorted(took_s)[-5] < 1  # a busy machine may stand still now and then
        began_at = time.perf_counter()
        assert not meter.flush(0.1)
        assert not meter.close(0.1)
        assert time.perf_counter() - began_at < 20
        assert (meter.stats.waiting, meter.stats.dropped) == (0, 500) or scheme == "stream"


def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    with silent(tmp_path / "s.sock"):
        meter = Meter(f"unix://{tmp_path / 's.sock'}", queue_bytes_max=65_536)
        for _ in range(100):
            meter.track("cus_1", "api_call", a="x" * 10_000)
        assert 5 <= meter.stats.waiting <= 6
        meter.close(0.0)


def test_a_full_queue_raises_if_it_is_told_to(tmp_path: Path) -> None:
    with silent(tmp_path / "s.sock"):
        meter = Meter(f"unix://{tmp_path / 's.sock'}", queue_events_max=1, when_full="raise")
        meter.track("cus_1", "api_call")
        with pytest.raises(QueueFullError, match="1 events wait for the sidecar"):
            meter.track("cus_1", "api_call")
        assert (meter.stats.waiting, meter.stats.dropped) == (1, 1)
        meter.close(0.0)


@pytest.mark.parametrize("address", ["", "unix://", "/run/taximeter.sock", "https://example.com", "redis://localhost"])
def test_an_address_of_another_kind_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValueError, match="address: expected unix:///PATH, stream:///PATH or http://HOST:PORT"):
        Meter(address)


def test_settings_that_can_not_be_used_are_refused() -> None:
    for options in ({"when_full": "wait"}, {"queue_events_max": 0}, {"queue_bytes_max": 1}, {"batch_events_max": 0}):
        with pytest.raises(ValueError, match="expected"):
            Meter("unix:///nowhere", **options)
