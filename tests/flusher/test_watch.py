"""Redis is watched while Postgres is away: that is when it fills up."""

import time
from collections.abc import Callable
from contextlib import closing

import pytest
import redis

from flusher.clock import Clock
from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer
from flusher.health import Health
from flusher.source import Source
from flusher.watch import INTERVAL_S, Seen, Watch
from flusher.worker import Worker
from sidecar.contract import keys
from sidecar.contract.codes import TryAgainError


class Later(Clock):
    """A clock that a test moves."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


def _add_a_batch(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        generation = client.hget(keys.state(0), "generation")
        assert isinstance(generation, bytes)
        client.xadd(keys.open_epoch(0, generation.decode()).stream, {"a": "b"})


def test_it_is_said_how_full_redis_is_while_postgres_is_away(
    start_postgres: Callable[..., PostgresServer], start_valkey: Callable[..., ValkeyServer]
) -> None:
    # given a flusher that works
    postgres, valkey = start_postgres(), start_valkey(appendonly="no", maxmemory="100mb")
    migrate(postgres.url)
    health = Health()
    with closing(Worker.connect(valkey.url, postgres.url, health)) as worker:
        worker.run_once()
        # when Postgres goes away and events come
        postgres.stop()
        _add_a_batch(valkey.url)
        deadline = time.monotonic() + 20

        def stopped(_: float) -> bool:
            undrained = health.registry.get_sample_value("taximeter_flusher_undrained_batches")
            time.sleep(0.05)
            return undrained == 1 or time.monotonic() > deadline

        worker.run(0.1, stopped)
    # then it says so all the same
    value = health.registry.get_sample_value
    assert value("taximeter_flusher_undrained_batches") == 1
    assert (value("taximeter_flusher_redis_memory_bytes") or 0) > 100_000
    assert value("taximeter_flusher_redis_memory_bytes_max") == 100 << 20
    assert (value("taximeter_flusher_unreachable_seconds", {"server": "postgres"}) or 0) > 0


def test_it_looks_every_few_seconds(redis_url: str) -> None:
    clock = Later()
    with closing(Source.connect(redis_url)) as source:
        watch = Watch(source, clock)
        assert isinstance(watch.look(range(2)), Seen)
        assert watch.look(range(2)) is None
        clock.now_s += INTERVAL_S
        assert isinstance(watch.look(range(2)), Seen)


def test_a_redis_that_is_away_is_said_to_be() -> None:
    with closing(Source.connect("redis://127.0.0.1:1")) as source, pytest.raises(TryAgainError, match="redis_unavail"):
        Watch(source, Later()).look(range(1))
