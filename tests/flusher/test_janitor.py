"""The janitor unlinks what nobody can read any more, and costs Redis and its flusher little."""

import redis

from flusher.clock import Clock
from flusher.janitor import Janitor
from flusher.source import Source
from sidecar.contract import keys

KEYS = 3_000


def calls(client: redis.Redis, command: str) -> int:
    stats = client.info("commandstats")
    assert isinstance(stats, dict)
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_replaced_generation_is_unlinked_and_asked_for_once_however_many_keys_it_has(redis_url: str) -> None:
    # given an open generation, and thousands of keys of one that was replaced
    client = redis.Redis.from_url(redis_url)
    client.hset(keys.state(0), "generation", "opened00")
    client.set(keys.identity_prefix(0, "opened00") + b"kept", b"1")
    client.mset({keys.identity_prefix(0, "replaced") + str(number).encode(): b"1" for number in range(KEYS)})
    before = calls(client, "exists") + calls(client, "hgetall")
    # when the janitor cleans
    source = Source.connect(redis_url)
    removed = Janitor(source, Clock(), grace_s=0.0, interval_s=0.0).clean()
    source.close()
    # then they are gone, what is open is not, and it asked a few times only
    assert removed == KEYS
    assert client.dbsize() == 2
    assert calls(client, "exists") + calls(client, "hgetall") - before <= 4
    client.close()
