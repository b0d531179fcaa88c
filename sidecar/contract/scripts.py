"""The stored procedures of the Redis schema: every script's text, its KEYS and ARGV built from typed values, its reply.

Pure: a `Call` is what to run, each side runs it with its own client. All scripts may be repeated; their headers in
`lua/` say why.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Final, Literal, NamedTuple

from sidecar.contract import keys
from sidecar.contract.codec import Batch, Position, Running, column, numbers
from sidecar.contract.event import Identity
from sidecar.contract.identity import KEY_BYTES
from sidecar.contract.meters import Revision, Share, groups_of
from sidecar.contract.units import split

EPOCH_EVENTS_MAX: Final = 2_000_000  # then ingest waits in the journals until the flusher has sealed
EPOCH_FIELDS_MAX: Final = 150_000  # of counters: five arguments each at most in one publish, of a million
NOT_COVERED: Final = 65535

ScriptName = Literal[
    "ingest",
    "ingest_opaque",
    "seal",
    "read_entries",
    "read_counters",
    "publish",
    "fence",
    "stage",
    "swap",
    "register",
    "deregister",
    "live",
    "inspect",
]


class Script(NamedTuple):
    """A script's text and the SHA-1 that Redis knows it by."""

    text: bytes
    sha1: str


class Call(NamedTuple):
    """A script and what it is called with."""

    script: Script
    keys: Sequence[bytes | str]
    args: Sequence[bytes | str | int]

    def evalsha(self) -> tuple[bytes | str | int, ...]:
        """Return the command that runs it where the script is loaded already."""
        return ("EVALSHA", self.script.sha1, len(self.keys), *self.keys, *self.args)


@cache
def script(name: ScriptName) -> Script:
    """Return the script called `name`."""
    text = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


class Shard(NamedTuple):
    """A shard of a ledger, and the generation that its keys have now."""

    ledger: str
    shards: int
    number: int
    generation: str


class _Folded:
    """A batch as counters, and how to take each of its events out of them again.

    Events of one content and one window add the same: they are one group, and what that is, is worked out once.
    """

    def __init__(self, batch: Batch, revision: Revision) -> None:
        counts, self._group_of = groups_of(batch)
        self._counters: dict[tuple[str, str, int, str], list[int]] = {}  # -> [number, nanos, events]
        self._removals: list[str] = []  # of each group
        counters = self._counters
        known: dict[tuple[str, int | str, str], list[tuple[Share, str]]] = {}  # what says the same adds the same
        for (place, window), count in counts.items():
            content = batch.contents[place]
            payload = (content.event_type, content.units, content.properties)
            shares = known.get(payload)
            if shares is None:
                found = revision.shares(content.event_type, content.properties, content.nanos)
                shares = [(share, "{} {} {}".format(*split(-share.nanos))) for share in found]
                known[payload] = shares
            removals: list[str] = []
            for (meter, dimensions, nanos), removal in shares:
                key = (content.user_id, meter, window, dimensions)
                counter = counters.get(key)
                if counter is None:
                    counter = counters[key] = [len(counters), 0, 0]
                counter[1] += nanos * count
                counter[2] += count
                removals.append(f"{counter[0]} {removal}")
            self._removals.append(";".join(removals))

    def removals(self) -> tuple[bytes, str]:
        """Return the arguments that say how to take events out again."""
        return self._group_of, "|".join(self._removals)

    def arguments(self) -> list[bytes | str | int]:
        """Return the counters as arguments."""
        out: list[bytes | str | int] = []
        for key, (_, nanos, events) in self._counters.items():
            out += (keys.counter_field(key), events, *split(nanos))
        return out


def _ranges(indices: Sequence[int]) -> str:
    """Return ascending indices as `"0-4,7-7"`."""
    if indices and indices[-1] - indices[0] == len(indices) - 1:
        return f"{indices[0]}-{indices[-1]}"
    spans: list[list[int]] = []
    for index in indices:
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(f"{low}-{high}" for low, high in spans)


class Step(NamedTuple):
    """One link of a producer's chain: the record that leads from `before` to `after`, and what is counted with it."""

    before: Position
    after: Position
    running: Running
    record: bytes


def ingest(shard: Shard, producer: str, step: Step, batch: Batch, revision: Revision, ttl_s: int) -> Call:
    """Return the call that applies `batch`, whose bytes are the record of `step`."""
    epoch = keys.open_epoch(shard.number, shard.generation)
    prefix = keys.identity_prefix(shard.number, shard.generation)
    names: list[bytes | str] = [keys.state(shard.number), *epoch]
    names += [prefix + claim.key for claim in batch.claims]
    names += [prefix + key for key in _keys_with_ids(batch)]
    folded = _Folded(batch, revision)
    args: list[bytes | str | int] = [shard.ledger, shard.shards, shard.generation, producer]
    args += (step.before.encode(), step.after.encode(), step.running.encode(), step.record)
    args += (batch.count, ttl_s, EPOCH_EVENTS_MAX, EPOCH_FIELDS_MAX)
    args += _claims(batch)
    args += (column("H", _places_with_ids(batch)), batch.fingerprints)
    args += folded.removals() if batch.ids or batch.claims else (b"", "")
    args += folded.arguments()
    return Call(script("ingest"), names, args)


def _claims(batch: Batch) -> list[bytes | str | int]:
    """Return the arguments that say what the claims of a batch cover."""
    if not batch.claims:
        return [0, b""]
    indices = batch.indices
    if batch.identities.count(Identity.INDEXED) != batch.count:
        rows = zip(numbers("H", indices), batch.identities, strict=True)
        indices = column("H", [index if identity == Identity.INDEXED else NOT_COVERED for index, identity in rows])
    covered = numbers("H", indices)
    args: list[bytes | str | int] = [len(batch.claims)]
    for claim in batch.claims:
        mine = [index for index in covered[claim.first : claim.first + claim.count] if index != NOT_COVERED]
        args += (claim.digest, _ranges(mine), claim.first, claim.count)
    args.append(indices)
    return args


def _places_with_ids(batch: Batch) -> Sequence[int]:
    """Return the places of the events with an id: mostly all of them, or none."""
    if len(batch.ids) in {0, batch.count}:
        return range(len(batch.ids))
    return [place for place, identity in enumerate(batch.identities) if identity <= Identity.CLAIMED]


def _keys_with_ids(batch: Batch) -> list[bytes]:
    """Return the keys of the events with an id."""
    found = [batch.keys[at : at + KEY_BYTES] for at in range(0, len(batch.keys), KEY_BYTES)]
    if len(found) == len(batch.ids):
        return found
    with_key = [identity for identity in batch.identities if identity != Identity.INDEXED]
    return [key for key, identity in zip(found, with_key, strict=True) if identity <= Identity.CLAIMED]


def ingest_opaque(shard: Shard, producer: str, step: Step, events: int) -> Call:
    """Return the call that takes a batch on without looking into it: its position and its stream entry alone."""
    epoch = keys.open_epoch(shard.number, shard.generation)
    args: list[bytes | str | int] = [shard.ledger, shard.shards, shard.generation, producer]
    args += (step.before.encode(), step.after.encode(), step.running.encode(), step.record, events, EPOCH_EVENTS_MAX)
    return Call(script("ingest_opaque"), [keys.state(shard.number), epoch.stream], args)


class IngestReply(NamedTuple):
    """What became of a batch. `outcome` is the first word of the script's reply; `detail` the second, or empty."""

    outcome: str
    detail: str

    def taken(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the places in the batch of its duplicates and of its conflicts."""
        return decode_taken(self.detail)


def decode_taken(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of duplicates and of conflicts that `"d3,c5"` means."""
    duplicates: list[int] = []
    conflicts: list[int] = []
    for part in text.split(",") if text else ():
        (duplicates if part[0] == "d" else conflicts).append(int(part[1:]))
    return tuple(duplicates), tuple(conflicts)


def ingest_reply(reply: Sequence[bytes]) -> IngestReply:
    """Return the script's reply as a value."""
    return IngestReply(reply[0].decode(), " ".join(part.decode() for part in reply[1:] if part))


def seal(shard: int, generation: str, token: str) -> Call:
    """Return the call that seals the open epoch under `token`."""
    names = [keys.state(shard), *keys.open_epoch(shard, generation), *keys.sealed_epoch(shard, generation, token)]
    return Call(script("seal"), names, [generation, token])


def read_entries(shard: int, generation: str, token: str, after: str, count: int) -> Call:
    """Return the call that reads at most `count` entries of the sealed epoch after the id `after`, `"-"` at first."""
    names = [keys.state(shard), keys.sealed_epoch(shard, generation, token).stream]
    return Call(script("read_entries"), names, [generation, token, after, count])


def read_counters(shard: int, generation: str, token: str, cursor: str, count: int) -> Call:
    """Return the call that reads about `count` fields of the sealed epoch's counters from `cursor`, `"0"` at first."""
    names = [keys.state(shard), keys.sealed_epoch(shard, generation, token).counters]
    return Call(script("read_counters"), names, [generation, token, cursor, count])


class DayTotals(NamedTuple):
    """The committed totals of a user's counters on a day: `fields` of `keys.total_field` to `encode_total`."""

    user_id: str
    day: int
    expires_at_s: int
    fields: dict[str, str]


def publish(
    shard: int, generation: str, token: str, committed: Sequence[tuple[str, Position]], totals: Sequence[DayTotals]
) -> Call:
    """Return the call that says that the sealed epoch is committed, with positions and totals as they are now."""
    names = [keys.state(shard), *keys.sealed_epoch(shard, generation, token)]
    args: list[bytes | str | int] = [generation, token, len(committed)]
    for producer, position in committed:
        args += (producer, position.encode())
    for day in totals:
        names.append(keys.totals(shard, generation, day.user_id, day.day))
        args += (day.expires_at_s, len(day.fields))
        for field, value in day.fields.items():
            args += (field, value)
    return Call(script("publish"), names, args)


def fence(shard: int, generation: str) -> Call:
    """Return the call that stops ingest into `generation`."""
    return Call(script("fence"), [keys.state(shard)], [generation])


class StagedHash(NamedTuple):
    """A hash of a generation that is not open yet: its key, when it expires (seconds since the epoch), its fields."""

    key: str
    expires_at_s: int
    fields: Mapping[str, str]


def stage(hashes: Sequence[StagedHash]) -> Call:
    """Return the call that writes hashes of a generation that is not open yet, all of one shard."""
    args: list[bytes | str | int] = []
    for staged in hashes:
        args += (staged.expires_at_s, len(staged.fields), *chain.from_iterable(staged.fields.items()))
    return Call(script("stage"), [staged.key for staged in hashes], args)


def swap(shard: int, observed: str, generation: str, token: str) -> Call:
    """Return the call that opens `generation` in place of the fenced `observed`, `""` where there was none."""
    return Call(script("swap"), [keys.state(shard), keys.staged_state(shard, generation)], [observed, token])


def register(shard: int, generation: str, producer: str, position: Position) -> Call:
    """Return the call that lets a producer start behind its position in Postgres."""
    return Call(script("register"), [keys.state(shard)], [generation, producer, position.encode()])


def deregister(shard: int, generation: str, producer: str, position: Position) -> Call:
    """Return the call that lets a producer go, if it is at its position in Postgres."""
    return Call(script("deregister"), [keys.state(shard)], [generation, producer, position.encode()])


def live(shard: int, generation: str, sealed: str, user_id: str, meter: str | None, windows: tuple[int, int]) -> Call:
    """Return the call that reads what a user has used from the first of `windows` up to the second."""
    opened, closed = keys.open_epoch(shard, generation), keys.sealed_epoch(shard, generation, sealed or "none")
    names = [keys.state(shard), opened.counters, opened.members, closed.counters, closed.members]
    names += [keys.totals(shard, generation, user_id, day) for day in keys.days(*windows)]
    return Call(script("live"), names, [generation, sealed, *keys.counter_range(user_id, meter, *windows)])


def inspect(shard: int, generation: str, sealed: str) -> Call:
    """Return the call that reads everything of a shard that is not in Postgres yet."""
    opened, closed = keys.open_epoch(shard, generation), keys.sealed_epoch(shard, generation, sealed or "none")
    names = [keys.state(shard), opened.stream, opened.counters, closed.stream, closed.counters]
    return Call(script("inspect"), names, [generation, sealed])
