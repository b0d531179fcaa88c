"""The Redis shell: what the flusher reads from a shard and writes to it. Every script may be repeated."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self, cast

import msgspec
from redis.exceptions import AskError, NoScriptError, RedisError

from flusher.entry import Entry, decode_entry
from flusher.nodes import Nodes, Place
from sidecar.contract import keys, scripts
from sidecar.contract.asking import Asking
from sidecar.contract.codec import Position, decode_position
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.meters import Amount, Counter
from sidecar.contract.scripts import Call, DayTotals, StagedHash
from sidecar.contract.slots import Servers
from sidecar.contract.units import join

CHUNK_ENTRIES: Final = 32
CHUNK_FIELDS: Final = 4_000
STAGED_TTL_S: Final = 600  # kept while totals are written
STAGE_FIELDS: Final = 1_000
VERSION_MIN: Final = (7, 0)


class EpochChanged(TryAgainError):
    """Another flusher went on with the shard meanwhile; the next cycle sees what is there."""

    def __init__(self) -> None:
        super().__init__("epoch_changed", "the epoch changed while it was read")


class Sealed(NamedTuple):
    """A sealed epoch: its token, the token that it follows, and how many entries it has."""

    token: str
    follows: str
    entries: int


@dataclass(frozen=True)
class ShardState:
    """The state of a shard in Redis. `generation` is None where there is none; `sealed` where no epoch is sealed."""

    ledger: str | None = None
    shards: int | None = None
    generation: str | None = None
    fenced: bool = False
    token: str | None = None
    sealed: Sealed | None = None
    positions: Mapping[str, Position] = field(default_factory=dict)
    committed: Mapping[str, Position] = field(default_factory=dict)


class Inspection(NamedTuple):
    """Everything of a shard that is not in Postgres yet, at one moment."""

    state: ShardState
    entries: list[Entry]
    counters: dict[Counter, Amount]


def random_token() -> str:
    """Return a token that nobody else has."""
    return secrets.token_hex(8)


def random_generation() -> str:
    """Return the name of a generation that nobody else has."""
    return secrets.token_urlsafe(6)


class Source:
    """A client of one Redis, or of a cluster.

    Raises TryAgainError `redis_unavailable` from every method when it does not answer, or another server has the key by
    now; then it is asked anew where the keys are.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    @classmethod
    def connect(cls, url: str) -> Self:
        """Return a client of the server, or the cluster, at `url`, which is not asked yet."""
        return cls(Nodes(url))

    def close(self) -> None:
        """Close the connections."""
        self._nodes.close()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            self._nodes.forget()
            what = f"a slot moved: {error}" if isinstance(error, AskError) else str(error)
            raise TryAgainError("redis_unavailable", f"Redis does not answer: {what}") from error

    def command(self, *arguments: Any, at: str | None = None) -> Any:
        """Run one command that may be repeated where its key is, or, if it has none, where the key `at` is."""
        with self._answering():
            return cast("Any", self._nodes.at(at or arguments[1])).execute_command(*arguments)

    def run(self, call: Call) -> Any:
        """Run a script that may be repeated."""
        arguments: tuple[Any, ...] = (*call.keys, *call.args)
        with self._answering():
            client = self._nodes.at(call.keys[0])
            try:
                return client.evalsha(call.script.sha1, len(call.keys), *arguments)
            except NoScriptError:
                return client.eval(call.script.text.decode(), len(call.keys), *arguments)

    # -- the servers --------------------------------------------------------------------------------------------

    def servers(self) -> Servers:
        """Return where the keys are."""
        with self._answering():
            return self._nodes.servers()

    def infos(self, *sections: str) -> dict[str, dict[str, Any]]:
        """Return these sections of INFO of each server, by its address."""
        with self._answering():
            return self._nodes.infos(*sections)

    def scan(self, place: Place, pattern: str, count: int) -> tuple[Place, list[bytes]]:
        """Return about `count` keys behind a place, and the place behind them, which at the end is the first again."""
        with self._answering():
            return self._nodes.scan(place, pattern, count)

    def check_suitable(self) -> None:
        """Raise TaximeterError `redis_unsuitable` for a server that may evict usage, or is too old."""
        for info in self.infos("memory", "server").values():
            policy = str(info.get("maxmemory_policy", "noeviction"))
            if policy != "noeviction":
                raise TaximeterError(
                    "redis_unsuitable", f"maxmemory-policy: expected noeviction, got {policy}; it would evict usage"
                )
            version = str(info.get("redis_version", "0.0"))
            if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
                raise TaximeterError("redis_unsuitable", f"Redis: expected version 7.0 or newer, got {version}")

    # -- a shard ------------------------------------------------------------------------------------------------

    def state(self, shard: int) -> ShardState:
        """Return the shard's state."""
        return _state(self.command("HGETALL", keys.state(shard)))

    def seal(self, shard: int, generation: str) -> Sealed | None:
        """Seal the open epoch, or return the one that is sealed already; None where nothing came.

        Raises EpochChanged when another generation is open.
        """
        reply = self.run(scripts.seal(shard, generation, random_token()))
        if reply[0] == b"generation":
            raise EpochChanged
        return None if reply[0] == b"empty" else Sealed(reply[1].decode(), reply[2].decode(), int(reply[3]))

    def entries(self, shard: int, generation: str, token: str) -> Iterator[list[Entry | None]]:
        """Yield the entries of the sealed epoch in chunks, None for what ingest did not write.

        Raises EpochChanged when it is no longer sealed.
        """
        after = "-"
        while True:
            reply = self.run(scripts.read_entries(shard, generation, token, after, CHUNK_ENTRIES))
            if reply[0] != b"ok":
                raise EpochChanged
            if not reply[1]:
                return
            yield [decode_entry(identifier, fields) for identifier, fields in reply[1]]
            after = reply[1][-1][0].decode()

    def counters(self, shard: int, generation: str, token: str) -> dict[Counter, Amount]:
        """Return the counters of the sealed epoch. Raises EpochChanged when it is no longer sealed."""
        flat: dict[bytes, bytes] = {}
        cursor = "0"
        while True:
            reply = self.run(scripts.read_counters(shard, generation, token, cursor, CHUNK_FIELDS))
            if reply[0] != b"ok":
                raise EpochChanged
            flat.update(zip(reply[2][::2], reply[2][1::2], strict=True))
            cursor = reply[1].decode()
            if cursor == "0":
                return decode_counters(flat)

    def publish(
        self,
        shard: int,
        generation: str,
        token: str,
        committed: Sequence[tuple[str, Position]],
        totals: Sequence[DayTotals],
    ) -> None:
        """Say that the sealed epoch is committed; nothing happens when another one is sealed by now."""
        self.run(scripts.publish(shard, generation, token, committed, totals))

    def fence(self, shard: int, generation: str) -> None:
        """Stop ingest into a generation. Raises EpochChanged when another one is open."""
        if self.run(scripts.fence(shard, generation))[0] != b"fenced":
            raise EpochChanged

    def stage_state(
        self, shard: int, generation: str, ledger: str, shards: int, positions: Sequence[tuple[str, Position]]
    ) -> None:
        """Write the state of a generation under its own name, to be opened by `swap` while it is kept.

        Redis's clock says for how long: by one that is slow, it would be gone at once, and never opened.
        """
        fields = {"ledger": ledger, "shards": str(shards), "generation": generation}
        for producer, position in positions:
            fields[keys.position_field(producer)] = fields[keys.committed_field(producer)] = position.encode()
        name = keys.staged_state(shard, generation)
        now_s = int(self.command("TIME", at=name)[0])
        self.run(scripts.stage([StagedHash(name, now_s + STAGED_TTL_S, fields)]))

    def is_staged(self, shard: int, generation: str) -> bool:
        """Return whether somebody is writing a generation now, to be opened."""
        return bool(self.command("EXISTS", keys.staged_state(shard, generation)))

    def keep_staged(self, shard: int, generation: str) -> None:
        """Keep a staged state for longer. Raises EpochChanged when it is gone: what was staged with it is, too."""
        if not self.command("EXPIRE", keys.staged_state(shard, generation), STAGED_TTL_S):
            raise EpochChanged

    def stage_totals(self, shard: int, generation: str, totals: Iterable[DayTotals]) -> None:
        """Write totals under a generation's name, before it is opened.

        A call holds Redis up for everybody, so each has about a thousand fields: of a part of a user's day, or of many.
        """
        hashes: list[StagedHash] = []
        fields = 0
        for day in totals:
            name = keys.totals(shard, generation, day.user_id, day.day)
            for part in _parts(day.fields):
                hashes.append(StagedHash(name, day.expires_at_s, part))
                fields += len(part)
                if fields >= STAGE_FIELDS:
                    self.run(scripts.stage(hashes))
                    hashes, fields = [], 0
        if hashes:
            self.run(scripts.stage(hashes))

    def swap(self, shard: int, observed: str | None, generation: str, token: str) -> None:
        """Open a staged generation. Raises EpochChanged when the shard is no longer as observed."""
        if self.run(scripts.swap(shard, observed or "", generation, token))[0] != b"swapped":
            raise EpochChanged

    def register(self, shard: int, generation: str, producer: str, position: Position) -> None:
        """Let a producer go on behind its position, unless another generation is open: its opening did."""
        self.run(scripts.register(shard, generation, producer, position))

    def deregister(self, shard: int, generation: str, producer: str, position: Position) -> bool:
        """Let a producer go; False when it is at another position by now, or another generation is open."""
        return bool(self.run(scripts.deregister(shard, generation, producer, position))[0] == b"gone")

    def inspect(self, shard: int) -> Inspection:
        """Return everything of the shard that is not in Postgres yet. Raises EpochChanged after many changes."""
        generation, sealed = "none", ""
        for _ in range(20):
            reply = self.run(scripts.inspect(shard, generation, sealed))
            if reply[0] == b"ok":
                state = _state(reply[1])
                found = (decode_entry(identifier, fields) for identifier, fields in [*reply[4], *reply[2]])
                entries = [entry for entry in found if entry is not None]
                counters = decode_counters(_pairs(reply[5]))
                for counter, amount in decode_counters(_pairs(reply[3])).items():
                    counters.setdefault(counter, Amount()).add(amount.nanos, amount.events)
                return Inspection(state, entries, counters)
            generation, sealed = reply[1].decode(), reply[2].decode()
            if not generation:
                return Inspection(ShardState(), [], {})
        raise EpochChanged

    def differing_totals(self, shard: int, generation: str, wanted: Iterable[DayTotals]) -> int:
        """Return how many totals of the generation are not as they should be, of the users and days that are named."""
        differing = 0
        for day in wanted:
            found = self.hash(keys.totals(shard, generation, day.user_id, day.day))
            differing += sum(found.get(field) != value for field, value in day.fields.items())
            differing += len(found.keys() - day.fields.keys())
        return differing

    # -- what every sidecar has to know -------------------------------------------------------------------------

    def hash(self, key: str) -> dict[str, str]:
        """Return a hash of text."""
        return {name.decode(): value.decode() for name, value in _pairs(self.command("HGETALL", key)).items()}

    def ledger_fields(self) -> dict[str, str]:
        """Return what the sidecars are told: ledger, shards, revision and floors."""
        return self.hash(keys.LEDGER)

    def tell_ledger(self, fields: Mapping[str, str], revisions: Mapping[int, str], users: Mapping[str, str]) -> None:
        """Tell the sidecars of the ledger, after every revision of the meters and the users of other customers."""
        for number, meters in revisions.items():
            self.command("HSET", keys.METERS, number, meters)
        self._replace_hash(keys.USERS, users)
        self.command("HSET", keys.LEDGER, *(part for pair in fields.items() for part in pair))

    def _replace_hash(self, key: str, fields: Mapping[str, str]) -> None:
        """Replace a hash at once, so that nobody reads half of it."""
        with self._answering(), self._nodes.at(key).pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if fields:
                pipeline.hset(key, mapping=cast("Any", dict(fields)))
            pipeline.execute()

    def asking(self) -> dict[str, Asking | None]:
        """Return what producers ask for, None for what can't be read."""
        found: dict[str, Asking | None] = {}
        for producer, text in self.hash(keys.ASKING).items():
            found[producer] = None
            with suppress(msgspec.DecodeError):
                found[producer] = msgspec.json.decode(text, type=Asking)
        return found

    def answered(self, producer: str) -> None:
        """Note that what a producer asked for was done."""
        self.command("HDEL", keys.ASKING, producer)


def _parts(fields: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Yield a hash in parts of at most `STAGE_FIELDS`."""
    if len(fields) <= STAGE_FIELDS:
        yield fields
        return
    pairs = list(fields.items())
    for first in range(0, len(pairs), STAGE_FIELDS):
        yield dict(pairs[first : first + STAGE_FIELDS])


def _pairs(flat: Any) -> dict[bytes, bytes]:
    if isinstance(flat, dict):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _state(reply: Any) -> ShardState:
    fields = {name.decode(): value.decode() for name, value in _pairs(reply).items()}
    sealed = None
    if "sealed" in fields:
        sealed = Sealed(fields["sealed"], fields.get("follows", ""), int(fields.get("entries", "0")))
    return ShardState(
        ledger=fields.get("ledger"),
        shards=int(fields["shards"]) if "shards" in fields else None,
        generation=fields.get("generation"),
        fenced="fence" in fields,
        token=fields.get("token"),
        sealed=sealed,
        positions=_positions(fields, "p:"),
        committed=_positions(fields, "c:"),
    )


def _positions(fields: Mapping[str, str], prefix: str) -> dict[str, Position]:
    """Return the positions that stand in a state. One that is none is left out: its shard gets a new generation."""
    found: dict[str, Position] = {}
    for name, text in fields.items():
        if name.startswith(prefix):
            with suppress(ValueError):
                found[name.removeprefix(prefix)] = decode_position(text)
    return found


def decode_counters(flat: Mapping[bytes, bytes]) -> dict[Counter, Amount]:
    """Return the counters whose limbs these fields hold; those that came to nothing are left out.

    What ingest did not write is passed over: if it displaced something, the stream says so (rule 9).
    """
    limbs: dict[str, dict[str, int]] = {}
    for name, value in flat.items():
        with suppress(ValueError):
            stem, _, suffix = name.decode().rpartition(keys.SEPARATOR)
            limbs.setdefault(stem, {})[suffix] = int(value)
    counters: dict[Counter, Amount] = {}
    for stem, parts in limbs.items():
        amount = Amount(join(parts.get("0", 0), parts.get("1", 0), parts.get("2", 0)), parts.get("n", 0))
        if amount.nanos or amount.events:
            with suppress(ValueError):
                counters[keys.decode_counter_field(stem)] = amount
    return counters
