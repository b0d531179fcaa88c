"""The janitor unlinks what nobody can read any more, and costs Redis and its flusher little."""

from contextlib import closing

import pytest
import redis

from flusher import janitor
from flusher.clock import Clock
from flusher.janitor import Janitor
from flusher.source import Source
from sidecar.contract import keys

KEYS = 3_000


class Later(Clock):
    """A clock that a test moves."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


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
    removed = Janitor(source, Later(), grace_s=0.0, interval_s=0.0).clean()
    source.close()
    # then they are gone, what is open is not, and it asked a few times only
    assert removed == KEYS
    assert client.dbsize() == 2
    assert calls(client, "exists") + calls(client, "hgetall") - before <= 4
    client.close()


def test_it_works_a_moment_at_a_time_more_often_while_there_is_something_to_remove_and_comes_to_an_end(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a replaced generation of thousands of keys, and a cleaning that ends after its first step
    monkeypatch.setattr(janitor, "BUDGET_S", 0.0)
    client = redis.Redis.from_url(redis_url)
    client.hset(keys.state(0), "generation", "opened00")
    client.mset({keys.identity_prefix(0, "replaced") + str(number).encode(): b"1" for number in range(KEYS)})
    clock = Later()
    with closing(Source.connect(redis_url)) as source:
        cleaner = Janitor(source, clock)

        def cleanings() -> int:
            before = calls(client, "scan")
            cleaner.clean()
            return calls(client, "scan") - before

        # when time passes, then nothing is removed within the grace
        for _ in range(int(janitor.GRACE_S / janitor.INTERVAL_S)):
            clock.now_s += janitor.INTERVAL_S
            assert cleanings() == 1
        assert client.dbsize() == KEYS + 1
        # and behind it everything is, a step a second, and then it looks seldom again
        clock.now_s += janitor.INTERVAL_S
        steps = 0
        for _ in range(20):
            steps += cleanings()
            clock.now_s += janitor.REMOVING_INTERVAL_S
        assert client.dbsize() == 1
        assert KEYS / janitor.SCAN_COUNT <= steps < 15
        clock.now_s += janitor.INTERVAL_S
        assert [cleanings() for _ in range(2)] == [1, 0]
    client.close()
