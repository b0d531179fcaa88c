"""The fixtures that every other test stands on."""

from collections.abc import Callable

import psycopg
import pytest
import redis

from flusher.embedded.valkey import ValkeyServer


@pytest.mark.parametrize("_run", [1, 2])
def test_each_test_has_a_migrated_database_and_an_empty_redis_of_its_own(
    _run: int, database_url: str, redis_url: str
) -> None:
    # Given a test that leaves something behind in both servers
    with psycopg.connect(database_url) as connection, redis.Redis.from_url(redis_url) as client:
        # Then the next one finds nothing of it
        connection.execute("CREATE TABLE left_behind (x int)")
        assert connection.execute("SELECT shards FROM taximeter.ledger").fetchone() == (1,)
        assert client.incr("left behind") == 1


def test_further_databases_take_a_shard_count(make_database: Callable[..., str]) -> None:
    with psycopg.connect(make_database(shards=4)) as connection:
        assert connection.execute("SELECT shards FROM taximeter.ledger").fetchone() == (4,)


def test_every_redis_answers(every_redis_url: str) -> None:
    with redis.Redis.from_url(every_redis_url) as client:
        assert client.dbsize() == 0


def test_a_dedicated_valkey_takes_options(start_valkey: Callable[..., ValkeyServer]) -> None:
    with redis.Redis.from_url(start_valkey(appendfsync="always").url) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
