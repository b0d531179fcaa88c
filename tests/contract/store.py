"""One shard of a ledger in a Redis, driven by its scripts alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.contract import keys, scripts
from sidecar.contract.codec import Batch, Position, Running, encode_batch
from sidecar.contract.event import Event
from sidecar.contract.identity import chain_next, chain_start
from sidecar.contract.meters import Amount, Counter, Revision
from sidecar.contract.scripts import Call, IngestReply, Shard, Step
from sidecar.contract.units import join

LEDGER = "ledger-1"
GENERATION = "genera-1"
TOKEN = "token-0"
TTL_S = 3600
NO_METERS = Revision(0, [])

Dump = dict[bytes, tuple[bytes, Any, int]]


class Producer:
    """A producer's chain on shard 0, as far as its batches were applied."""

    def __init__(self, name: str = "producer-1") -> None:
        self.name = name
        self.position = Position(0, chain_start(LEDGER, name, 0))
        self.running = Running(0, 0)

    def step(self, batch: Batch) -> Step:
        """Returns the step that `batch` would be."""
        record = encode_batch(batch)
        after = Position(self.position.sequence + 1, chain_next(self.position.digest, record))
        running = self.running.plus(batch.count, batch.nanos)
        return Step(self.position, after, running, record)

    def advance(self, step: Step) -> None:
        """Goes on behind a step."""
        self.position = step.after
        self.running = step.running


class Store:
    """Shard 0 behind a client. On a server that does not know a script's shebang line, it is made a comment."""

    def __init__(self, client: Any, *, knows_shebang: bool = True) -> None:
        self.client = client
        self._shebang = b"#!lua" if knows_shebang else b"-- lua"

    def run(self, call: Call) -> Any:
        """Runs a script."""
        text = call.script.text.replace(b"#!lua", self._shebang, 1)
        return self.client.eval(text, len(call.keys), *call.keys, *call.args)

    # -- generations

    def stage(self, generation: str, producers: Sequence[Producer] = (), *, ledger: str = LEDGER) -> None:
        """Writes the state of a generation under its own name."""
        fields = {"ledger": ledger, "shards": "1", "generation": generation}
        for producer in producers:
            fields[keys.position_field(producer.name)] = producer.position.encode()
            fields[keys.committed_field(producer.name)] = producer.position.encode()
        name = keys.staged_state(0, generation)
        self.client.hset(name, mapping=fields)
        self.client.expire(name, 600)

    def open(self, *producers: Producer, generation: str = GENERATION, observed: str = "", token: str = TOKEN) -> None:
        """Opens a generation."""
        self.stage(generation, producers)
        assert self.run(scripts.swap(0, observed, generation, token)) == [b"swapped"]

    def state(self) -> dict[str, str]:
        """Returns the shard's state."""
        found: Mapping[bytes, bytes] = self.client.hgetall(keys.state(0))
        return {name.decode(): value.decode() for name, value in found.items()}

    # -- ingest

    def call(
        self,
        producer: Producer,
        batch: Batch,
        revision: Revision = NO_METERS,
        *,
        generation: str = GENERATION,
        ledger: str = LEDGER,
        shards: int = 1,
    ) -> Call:
        """Returns the call that applies a batch."""
        shard = Shard(ledger, shards, 0, generation)
        return scripts.ingest(shard, producer.name, producer.step(batch), batch, revision, TTL_S)

    def ingest(self, producer: Producer, batch: Batch, revision: Revision = NO_METERS) -> IngestReply:
        """Applies a batch; the producer goes on behind it when it was applied."""
        step = producer.step(batch)
        reply = scripts.ingest_reply(self.run(self.call(producer, batch, revision)))
        if reply.outcome == "applied":
            producer.advance(step)
        return reply

    # -- what is there

    def dump(self) -> Dump:
        """Returns every key with its type, its value and when it expires."""
        found: Dump = {}
        for name in self.client.scan_iter(count=1000):
            kind = self.client.type(name)
            expires = self.client.pexpiretime(name)
            found[name] = (kind, self._value(kind, name), expires)
        return found

    def _value(self, kind: bytes, name: bytes) -> Any:
        match kind:
            case b"string":
                return self.client.get(name)
            case b"hash":
                return self.client.hgetall(name)
            case b"zset":
                return self.client.zrange(name, 0, -1, withscores=True)
            case b"list":
                return self.client.lrange(name, 0, -1)
            case b"stream":
                return self.client.xrange(name)
        raise ValueError(f"{name!r} is a {kind!r}")

    def counters(self, epoch: keys.EpochKeys | None = None) -> dict[Counter, Amount]:
        """Returns the counters of an epoch, the open one by default, and checks the index against them."""
        names = epoch or keys.open_epoch(0, GENERATION)
        flat: dict[bytes, bytes] = self.client.hgetall(names.counters)
        members = [member.decode() for member in self.client.zrange(names.members, 0, -1)]
        assert {field.decode().rpartition(keys.SEPARATOR)[0] for field in flat} == set(members)
        found: dict[Counter, Amount] = {}
        for member in members:
            suffixes = (keys.COUNT_SUFFIX, *keys.LIMB_SUFFIXES)
            events, *limbs = (int(flat.get((member + suffix).encode(), b"0")) for suffix in suffixes)
            low, middle, high = limbs
            found[keys.decode_counter_field(member)] = Amount(join(low, middle, high), events)
        return found

    def entries(self, epoch: keys.EpochKeys | None = None) -> list[dict[str, bytes]]:
        """Returns the fields of every entry of an epoch, the open one by default."""
        name = (epoch or keys.open_epoch(0, GENERATION)).stream
        return [{key.decode(): value for key, value in fields.items()} for _, fields in self.client.xrange(name)]


def folded(events: Sequence[Event], revision: Revision = NO_METERS, taken: Sequence[int] = ()) -> dict[Counter, Amount]:
    """Returns the counters of the events but those at the places that were taken for repeats."""
    return revision.fold(event for place, event in enumerate(events) if place not in taken)


def nonzero(counters: Mapping[Counter, Amount]) -> dict[Counter, Amount]:
    """Returns the counters that did not come to nothing."""
    return {counter: amount for counter, amount in counters.items() if amount != Amount()}
