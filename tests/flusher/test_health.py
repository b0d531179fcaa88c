"""The flusher's metrics and health, without a flusher."""

import re
import socket
import threading
import urllib.request
from http import HTTPStatus
from pathlib import Path

import pytest

from flusher import health
from flusher.drain import Drained
from flusher.health import Health, HealthServer, answer
from flusher.retention import Dropped
from flusher.watch import Seen
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.settings import Address

README = Path(__file__).parents[2] / "flusher" / "README.md"
LOOPBACK = Address("127.0.0.1", 0)


def _value(of: Health, name: str, **labels: str) -> float | None:
    return of.registry.get_sample_value(name, labels)


def test_it_is_ready_after_a_cycle_and_no_longer_after_an_error() -> None:
    one = Health()
    assert answer("/readyz", one).status == HTTPStatus.SERVICE_UNAVAILABLE
    assert b'"code": "starting"' in answer("/readyz", one).body
    one.cycle_ended(0.1)
    assert answer("/readyz?verbose", one).status == HTTPStatus.OK
    one.failed(TryAgainError("redis_unavailable", "Redis does not answer"))
    said = answer("/readyz", one)
    assert (said.status, said.content_type) == (HTTPStatus.SERVICE_UNAVAILABLE, "application/problem+json")
    assert b'"code": "redis_unavailable"' in said.body
    one.cycle_ended(0.1)
    assert answer("/readyz", one).status == HTTPStatus.OK


def test_it_is_alive_whatever_happens() -> None:
    one = Health()
    one.failed(TaximeterError("invariant_broken", "it does not add up"))
    assert answer("/livez", one).status == HTTPStatus.OK


def test_everything_that_a_drain_did_is_counted() -> None:
    one = Health()
    for _ in range(2):
        one.drained(Drained(epochs=1, events=10, duplicates=3, conflicts=2, quarantined=1, discrepancies=4))
    one.generation_opened(0)
    one.cleaned(Dropped(claims=7, events=100))
    one.cycle_ended(0.25)
    one.failed(TryAgainError("database_unavailable", "away"))
    outcomes = ("inserted", "duplicate", "conflict", "quarantined")
    assert [_value(one, "taximeter_flusher_events_total", outcome=each) for each in outcomes] == [20, 6, 4, 2]
    assert _value(one, "taximeter_flusher_epochs_total") == 2
    assert _value(one, "taximeter_flusher_discrepancies_total") == 8
    assert _value(one, "taximeter_flusher_generations_total") == 1
    assert _value(one, "taximeter_flusher_dropped_claims_total") == 7
    assert _value(one, "taximeter_flusher_dropped_events_total") == 100
    assert _value(one, "taximeter_flusher_cycle_seconds_sum") == 0.25
    assert _value(one, "taximeter_flusher_errors_total", code="database_unavailable") == 1


def test_how_full_redis_is_and_how_long_a_server_is_silent_are_said() -> None:
    one = Health()
    one.looked(Seen(memory_bytes=850, memory_bytes_max=1000, batches=3))
    assert _value(one, "taximeter_flusher_redis_memory_bytes") == 850
    assert _value(one, "taximeter_flusher_redis_memory_bytes_max") == 1000
    assert _value(one, "taximeter_flusher_undrained_batches") == 3
    # when Postgres is silent, and then Redis too
    one.failed(TryAgainError("database_unavailable", "away"))
    first = _silent_s(one, "postgres")
    assert _silent_s(one, "redis") == 0
    one.failed(TryAgainError("redis_unavailable", "away"))
    one.failed(TryAgainError("database_unavailable", "away"))
    # then both times grow, each from its beginning, until Redis answers, and until a cycle went well
    assert _silent_s(one, "postgres") > first > 0
    assert 0 < _silent_s(one, "redis") < _silent_s(one, "postgres")
    one.looked(Seen(1, 1, 1))
    assert _silent_s(one, "redis") == 0 < _silent_s(one, "postgres")
    one.cycle_ended(0.1)
    assert _silent_s(one, "postgres") == 0


def _silent_s(of: Health, server: str) -> float:
    found = _value(of, "taximeter_flusher_unreachable_seconds", server=server)
    return -1 if found is None else found


def test_the_page_lists_every_metric() -> None:
    rows = re.findall(r"^\| `(taximeter_[a-z_]+)` \| ([a-z]+) \|", README.read_text("utf-8"), re.MULTILINE)
    families = sorted(Health().registry.collect(), key=lambda family: family.name)
    assert rows == [(family.name + ("_total" if family.type == "counter" else ""), family.type) for family in families]


def test_it_serves_until_it_is_closed() -> None:
    with HealthServer(LOOPBACK, Health()) as server:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=30) as served:
            assert served.status == 200
            assert b"taximeter_flusher_epochs_total 0.0" in served.read()
        port = server.address.port
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_is_refused_with_the_reason() -> None:
    expected = r"--health-http: can't listen on 127\.0\.0\.1:\d+: Address already in use"
    with HealthServer(LOOPBACK, Health()) as server, pytest.raises(TaximeterError, match=expected):
        HealthServer(server.address, Health())


def test_whoever_says_nothing_keeps_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    # given as many silent connections as are served at once
    monkeypatch.setattr(health, "READ_TIMEOUT_S", 0.5)
    with HealthServer(LOOPBACK, Health()) as server:
        silent = [
            socket.create_connection((server.address.host, server.address.port), timeout=30)
            for _ in range(health.CONNECTIONS_MAX)
        ]
        # then they are closed, so that others are served again
        assert [one.recv(1) for one in silent] == [b""] * health.CONNECTIONS_MAX
        with urllib.request.urlopen(f"http://{server.address}/livez", timeout=30) as served:
            assert served.status == 200
        for one in silent:
            one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "health"]
