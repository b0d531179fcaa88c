"""The in-memory Redis is held to a real one: the same calls, the same replies, the same keyspace."""

import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, cast

import pytest
import redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from sidecar.contract import keys, scripts
from sidecar.contract.scripts import Call, DayTotals, StagedHash
from tests.contract.store import GENERATION, LEDGER, NO_METERS, Producer
from tests.contract.values import JULY_US, a_batch, a_claim, an_event, indexed
from tests.simulation.mini_redis import KINDS, MiniRedis, SortedSet, Stream

CALLS = 120
NEXT = "genera-2"


class Pair:
    """Both servers. Whatever is run is run on both, and both have to say the same."""

    def __init__(self, client: redis.Redis, rng: Random) -> None:
        self.client = client
        self.mini = MiniRedis(time.time)
        self.rng = rng
        self.ids: dict[bytes, bytes] = {}  # the ids of stream entries, of either server, by their order

    def run(self, call: Call) -> Any:
        """Runs a script on both and returns the real reply."""
        text = call.script.text.decode()
        real = self._reply(lambda: self.client_command("EVAL", text, len(call.keys), *call.keys, *call.args))
        mini = self._reply(lambda: self.mini.execute("EVAL", text, len(call.keys), *call.keys, *call.args))
        assert self._named(real) == self._named(mini), call
        return real

    def client_command(self, *words: Any) -> Any:
        """Runs a command on the real server."""
        return cast("Any", self.client).execute_command(*words)

    def command(self, *words: Any) -> Any:
        """Runs a command on both."""
        real = self._reply(lambda: self.client_command(*words))
        mini = self._reply(lambda: self.mini.execute(*words))
        if isinstance(real, dict):
            real = [part for pair in real.items() for part in pair]
        real = b"OK" if real is True else real
        assert self._named(real) == self._named(mini), words
        return real

    @staticmethod
    def _reply(ask: Any) -> Any:
        try:
            return ask()
        except ResponseError as error:
            return type(error).__name__, str(error).split(" script:")[0].split(" ")[0]

    def _named(self, reply: Any) -> Any:
        """Returns a reply with the ids of stream entries counted from 1, and what has no order sorted."""
        if isinstance(reply, list):
            return [self._named(part) for part in reply]
        if isinstance(reply, bytes) and len(reply) > 14 and reply[13:14] == b"-" and reply[:13].isdigit():
            return b"an id"
        return reply

    def keyspace(self) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
        """Returns what both hold: kind, value, and whether it expires."""
        real: dict[bytes, Any] = {}
        for name in self.client.scan_iter(count=1000):
            kind = self.client.type(name)
            expires = self.client.pexpiretime(name)
            real[name] = (kind, self._value(kind, name), -1 if expires == -1 else expires // 10_000)
        mini: dict[bytes, Any] = {}
        for name, value in self.mini.data.items():
            expires_s = self.mini.expires.get(name)
            found = [[fields] for _, fields in value] if isinstance(value, Stream) else value
            mini[name] = (
                KINDS[type(value).__name__],
                sorted(found) if isinstance(value, SortedSet) else found,
                -1 if expires_s is None else int(expires_s * 1000) // 10_000,
            )
        return real, mini

    def _value(self, kind: Any, name: bytes) -> Any:
        if kind == b"string":
            return self.client.get(name)
        if kind == b"hash":
            return self.client.hgetall(name)
        if kind == b"zset":
            return self.client.zrange(name, 0, -1)
        entries: Any = self.client.xrange(name)
        return [[[part for pair in fields.items() for part in pair]] for _, fields in entries]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url, protocol=2)
    yield made
    made.close()


class Play:
    """A random play of everything that the programs do with a shard."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.rng = pair.rng
        self.producers = [Producer("producer-1"), Producer("producer-2")]
        self.generation = GENERATION
        self.token = "none"

    def open(self, observed: str = "", generation: str = GENERATION) -> None:
        fields = {"ledger": LEDGER, "shards": "1", "generation": generation}
        for producer in self.producers:
            fields[keys.position_field(producer.name)] = producer.position.encode()
        staged = StagedHash(keys.staged_state(0, generation), int(time.time()) + 600, fields)
        self.pair.run(scripts.stage([staged]))
        self.pair.run(scripts.swap(0, observed, generation, f"token-{self.rng.random()}"))
        self.generation = generation

    def ingest(self) -> None:
        rng, producer = self.rng, self.rng.choice(self.producers)
        events: list[Any] = [
            an_event(rng.choice([None, "e-1", "e-2", "e-3"]), nanos=rng.choice([1, 2_000_000_000, -3]))
            for _ in range(rng.randint(0, 3))
        ]
        claims = []
        if rng.random() < 0.5:
            share = indexed("k-1", sorted(rng.sample(range(6), rng.randint(1, 4))))
            claims.append(a_claim("k-1", share, digest=rng.choice([b"a", b"b"]) * 16, first=len(events)))
            events += share
        batch = a_batch(events, claims)
        step = producer.step(batch)
        shard = scripts.Shard(rng.choice([LEDGER] * 9 + ["other"]), 1, 0, self.generation)
        if rng.random() < 0.15:
            call = scripts.ingest_opaque(shard, producer.name, step, len(events))
        else:
            call = scripts.ingest(shard, producer.name, step, batch, NO_METERS, 600)
        if self.pair.run(call)[0] == b"applied" and rng.random() < 0.9:
            producer.advance(step)  # else it is sent again, and told its position

    def seal(self) -> None:
        reply = self.pair.run(scripts.seal(0, self.generation, f"{self.rng.getrandbits(64):016x}"))
        if reply[0] == b"sealed":
            self.token = reply[1].decode()

    def read(self) -> None:
        self.pair.run(scripts.read_entries(0, self.generation, self.token, "-", 100))
        real, mini = (
            {bytes(a): b for a, b in zip(reply[2][::2], reply[2][1::2], strict=True)} if reply[0] == b"ok" else reply
            for reply in self._on_both(scripts.read_counters(0, self.generation, self.token, "0", 10_000))
        )
        assert real == mini

    def _on_both(self, call: Call) -> Sequence[Any]:
        words = ("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)
        return self.pair.client_command(*words), self.pair.mini.execute(*words)

    def publish(self) -> None:
        day = DayTotals("cus_1", 20_000, int(time.time()) + 900, {"calls": f"{self.rng.random()}"})
        committed = [(producer.name, producer.position) for producer in self.producers]
        token = self.token if self.rng.random() < 0.8 else "another"
        self.pair.run(scripts.publish(0, self.generation, token, committed, [day]))

    def replace(self) -> None:
        other = NEXT if self.generation == GENERATION else GENERATION
        if self.rng.random() < 0.8:
            self.pair.run(scripts.fence(0, self.generation))
        observed = self.generation
        self.open(observed, other)

    def ask(self) -> None:
        window = JULY_US // 900_000_000
        self.pair.run(scripts.live(0, self.generation, "", "cus_1", None, (window, window + 1)))
        name = self.rng.choice(["producer-1", "producer-3"])
        zero = Producer(name).position
        self.pair.run(scripts.register(0, self.generation, name, zero))
        self.pair.run(scripts.deregister(0, self.generation, "producer-3", zero))
        self.pair.command("HMGET", keys.state(0), "generation", "nothing", "token")
        self.pair.command("HSET", "{t1}:asking", "a", self.rng.choice(["1", "2"]))
        self.pair.command("HDEL", "{t1}:asking", "a", "b")
        self.pair.command("SET", "once", "1", "NX", "GET", "EX", 100)
        self.pair.command("GET", "nothing")
        self.pair.command("EXISTS", "once", "nothing")
        self.pair.command("UNLINK", "once")

    def spoil(self) -> None:
        name = keys.open_epoch(0, self.generation).counters
        self.pair.command("HSET", name, self.rng.choice([b"cus_1\x1fapi_call\x1fx\x1f{}\x1fn", "field"]), "junk")


@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_of_calls_is_answered_as_by_a_real_server(client: redis.Redis, seed: int) -> None:
    # given an open generation on both servers
    pair = Pair(client, Random(seed))
    play = Play(pair)
    play.open()
    steps = [play.ingest] * 12 + [play.seal, play.read, play.publish, play.read] * 2 + [play.replace, play.ask]
    # when the programs do what they do, and once in a while somebody else writes
    for _ in range(CALLS):
        pair.rng.choice([*steps, play.spoil] if seed % 2 else steps)()
    # then every reply was the same, and so is what is left
    real, mini = pair.keyspace()
    assert real.keys() == mini.keys()
    assert {name: real[name] for name in real if real[name] != mini[name]} == {}


def test_a_full_server_denies_what_needs_memory_and_runs_what_gives_it_back() -> None:
    # given a server without memory, as a real one is tested in tests/contract/test_scripts_memory.py
    mini = MiniRedis(time.time)
    mini.full = True
    call = scripts.ingest_opaque(scripts.Shard(LEDGER, 1, 0, GENERATION), "producer-1", Producer().step(a_batch([])), 0)
    # then ingest is denied, and what the flusher does is not
    with pytest.raises(OutOfMemoryError):
        mini.execute("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)
    with pytest.raises(OutOfMemoryError):
        mini.execute("HSET", "key", "field", "value")
    fence = scripts.fence(0, GENERATION)
    assert mini.execute("EVAL", fence.script.text, len(fence.keys), *fence.keys, *fence.args) == [b"generation", b""]


def test_a_restarted_server_knows_no_script() -> None:
    mini = MiniRedis(time.time)
    fence = scripts.fence(0, GENERATION)
    mini.execute("SCRIPT", "LOAD", fence.script.text)
    assert mini.execute(*fence.evalsha())[0] == b"generation"
    mini.restart()
    with pytest.raises(NoScriptError):
        mini.execute(*fence.evalsha())
