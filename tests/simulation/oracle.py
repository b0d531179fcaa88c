"""What must hold, judged without the product's code: from what the clients wrote down, from every commit, and from
what is left in the stores at the end.

The chain's hash, the frame of a record and the keys of Redis are read here by code of our own.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sidecar.contract.codec import Position
from tests.simulation.clients import Clients, Payload
from tests.simulation.database import GONE, Commit, Database, Session
from tests.simulation.epochs import VOID, differing_users
from tests.simulation.ledger import Place
from tests.simulation.machines import SidecarHost
from tests.simulation.mini_redis import MiniRedis, Stream
from tests.simulation.world import World

HEADER_BYTES = 32
SUCCESS = frozenset({"accepted", "duplicate", "journaled"})
MICROSECONDS_PER_WINDOW = 900 * 1_000_000


class Violation(AssertionError):
    """Something that must never be was seen."""


class Links:
    """Every step of every chain that a journal ever made: which digest follows which, by a hash of our own."""

    def __init__(self) -> None:
        self.before: dict[bytes, tuple[bytes, int]] = {}  # digest -> the one before, sequence
        self.after_record: dict[bytes, set[bytes]] = defaultdict(set)

    def note(self, before: Position, record: bytes) -> None:
        """Remembers a step."""
        digest = blake2b(before.digest + record, digest_size=16, person=b"chain").digest()
        self.before[digest] = (before.digest, before.sequence + 1)
        self.after_record[record].add(digest)

    def between(self, old: Position, new: Position) -> list[bytes] | None:
        """Returns the digests behind `old` up to `new`; None where the chain does not lead there."""
        digest, sequence, found = new.digest, new.sequence, []
        while sequence > old.sequence:
            step = self.before.get(digest)
            if step is None or step[1] != sequence:
                return None
            found.append(digest)
            digest, sequence = step[0], sequence - 1
        return found if (digest, sequence) == (old.digest, old.sequence) else None


class Oracle:
    """Watches a history. Every problem it sees is in `problems`."""

    def __init__(self, world: World, database: Database, server: MiniRedis, clients: Clients) -> None:
        self.world = world
        self.database = database
        self.server = server
        self.clients = clients
        self.problems: list[str] = []
        self.links = Links()
        self.redis_lost_at_s = -1.0  # when Redis last lost or changed something by itself
        self.totals_evicted = False
        self.failovers = False
        self.disks_lost: dict[str, float] = {}  # host -> when its disk lost what it had synced
        self.times_unsure = False  # two machines give times under one name
        self._covered: dict[bytes, float] = {}  # digest -> when Postgres first had it
        self._covered_by: list[tuple[Commit, list[bytes]]] = []

    def violation(self, text: str) -> None:
        """Notes what must not be."""
        self.world.log(f"VIOLATION: {text}")
        self.problems.append(f"at {self.world.now_s:.3f} s: {text}")

    # -- while it runs

    def committed(self, session: Session, commit: Commit) -> None:
        """Judges one commit of Postgres."""
        watermarks = self._watermarks_before(commit)
        for table, key, before, after in commit.changes:
            if table == "positions" and after is not GONE and before is not GONE:
                self._moved(key, before, after, commit)
            elif table == "events":
                self._inserted(key, before, after, watermarks)
            elif table == "shards":
                self._drained(key[0], after, session, commit)

    def _moved(self, key: tuple[Any, ...], before: Place, after: Place, commit: Commit) -> None:
        digests = self.links.between(before.position, after.position)
        if digests is None:
            self.violation(f"{key}: position jumped from {before.position.sequence} to {after.position.sequence}")
            return
        fresh = [digest for digest in digests if digest not in self._covered]
        for digest in fresh:
            self._covered[digest] = self.world.now_s
        self._covered_by.append((commit, fresh))
        if after.watermark_us < before.watermark_us:
            self.violation(f"{key}: the watermark went back")

    def _watermarks_before(self, commit: Commit) -> dict[int, int]:
        """Returns how far every shard could be closed before a commit, microseconds."""
        rows = dict(self.database.tables["positions"])
        for table, key, before, _ in commit.changes:
            if table == "positions":
                if before is GONE:
                    rows.pop(key, None)
                else:
                    rows[key] = before
        producers = self.database.tables["producers"]
        found: dict[int, int] = {}
        for (producer, shard), row in rows.items():
            if not producers[producer,].retired:
                found[shard] = min(row.watermark_us, found.get(shard, row.watermark_us))
        return found

    def _inserted(self, key: tuple[Any, ...], before: Any, after: Any, watermarks: dict[int, int]) -> None:
        if before is not GONE:
            self.violation(f"the event {key} was stored twice")
        if after is GONE:
            self.violation(f"the event {key} was deleted")
            return
        shard, event, parts = after[0], after[3], after[4]
        if event.event_type == VOID:
            if (event.user_id, event.id, event.time_us) not in self.clients.voids:
                self.violation(f"a void that nobody sent was stored: {event}")
            return
        payloads = [self.clients.payloads.get(nanos) for nanos in parts]
        for payload in payloads:
            if payload is None:
                self.violation(f"an event that nobody sent was stored: {event}")
            elif len(parts) > 1 or payload.time_us is not None or self.times_unsure:
                continue  # a row of several has the time of their window
            elif event.time_us < watermarks.get(shard, 0):
                self.violation(f"an event was given {event.time_us}, before the watermark {watermarks[shard]}")

    def _drained(self, shard: int, token: str, session: Session, commit: Commit) -> None:
        """Counters that differ from the stream are recorded with the epoch that they differ in (rule 9)."""
        state = self.server.data.get(b"{t1:%d}" % shard)
        if not isinstance(state, dict) or state.get(b"sealed") != token.encode():
            return
        if self.redis_lost_at_s >= session.held_since_s:
            return
        stem = b"{t1:%d}%s:%s:" % (shard, state[b"generation"], token.encode())
        differing = differing_users(self.server.data.get(stem + b"stream"), self.server.data.get(stem + b"counters"))
        recorded = {row[2].user_id for table, _, _, row in commit.changes if table == "discrepancies"}
        for user_id in differing - recorded:
            self.violation(f"shard {shard}: counters of {user_id} differ from the stream, and nobody says so")

    def failed_over(self, since_s: float) -> None:
        """Notes that Postgres lost its last commits."""
        self.failovers = True
        while self._covered_by and self._covered_by[-1][0].at_s >= since_s:
            for digest in self._covered_by.pop()[1]:
                del self._covered[digest]

    def removing(self, host: SidecarHost, path: Path, content: bytes) -> None:
        """Judges that a segment is deleted: Postgres has every record in it, and has had it for long enough."""
        hold_s = host.limits.hold_s if not self.failovers else 0.0
        if path.suffix != ".segment" or path.with_name("cut") in host.platter.files:
            return
        offset = 0
        while offset + HEADER_BYTES <= len(content):
            length = int.from_bytes(content[offset + 4 : offset + 8], "big")
            record = content[offset + HEADER_BYTES : offset + HEADER_BYTES + length]
            offset += HEADER_BYTES + length
            if len(record) < length or record not in self.links.after_record:
                return
            since = [self._covered[one] for one in self.links.after_record[record] if one in self._covered]
            if not since:
                self.violation(f"{host.name} deletes {path.name}, of which Postgres lacks a record")
                return
            if self.world.now_s - min(since) < hold_s and not _is_full(host, len(content)):
                self.violation(f"{host.name} deletes {path.name} before the hold of {hold_s} s is over")
                return

    def giving_up(self, name: bytes, stream: Stream) -> None:
        """Judges that an epoch leaves Redis: nothing in it is what Postgres would take next."""
        if self.failovers:
            return
        shard = int(name[4 : name.index(b"}")])
        positions = {
            f"{row.position.sequence}:{row.position.digest.hex()}".encode(): producer
            for (producer, number), row in self.database.tables["positions"].items()
            if number == shard and not self.database.tables["producers"][producer,].retired
        }
        for _, flat in stream:
            entry = dict(zip(flat[::2], flat[1::2], strict=True))
            producer = positions.get(entry[b"a"])
            if producer is not None and entry[b"p"].decode() == producer:
                self.violation(f"{name!r} leaves Redis with what Postgres lacks of {producer}")
                return

    def answered(self, host: SidecarHost) -> None:
        """Judges that a host says success: Postgres knows the producer that it speaks for (rule 6)."""
        manifest = host.ingest.journal.manifest if host.ingest is not None else None
        known = self.database.tables["producers"]
        if manifest is None or manifest.predecessors or self.failovers or (manifest.producer,) in known:
            return
        self.violation(f"{host.name} accepts as {manifest.producer}, of which Postgres knows nothing")

    # -- at the end

    def finish(self, hosts: Sequence[SidecarHost]) -> None:
        """Judges what is left when everything healed and drained."""
        rows = list(self.database.tables["events"].values())
        counted: dict[int, int] = defaultdict(int)
        for row in rows:
            for nanos in row[4]:
                counted[nanos] += 1
        quarantined: dict[int, int] = defaultdict(int)
        for row in self.database.tables["quarantine"].values():
            quarantined[row[6]] += 1
        groups: dict[tuple[object, ...], list[Payload]] = defaultdict(list)
        for payload in self.clients.payloads.values():
            groups[payload.group].append(payload)
        for group, payloads in groups.items():
            self._judge(group, payloads, counted)
        self._voids(rows)
        self._usage(rows)
        self._values(rows)
        self._totals()
        self._tables(hosts)

    def _is_owed(self, payload: Payload) -> bool:
        """Returns whether a payload was answered with success by somebody whose word still holds."""
        return any(
            fate.said in SUCCESS
            and not (fate.said == "journaled" and self.disks_lost.get(fate.host, -1.0) >= fate.at_s)
            for fate in payload.fates
        )

    def _judge(self, group: tuple[object, ...], payloads: list[Payload], counted: dict[int, int]) -> None:
        counts = {payload.nanos: counted.get(payload.nanos, 0) for payload in payloads}
        if group[0] == "made":
            payload = payloads[0]
            least = sum(
                fate.said in SUCCESS
                and not (fate.said == "journaled" and self.disks_lost.get(fate.host, -1.0) >= fate.at_s)
                for fate in payload.fates
            )
            if not least <= counts[payload.nanos] <= payload.sent:
                self.violation(
                    f"{group}: answered {least} of {payload.sent} times, counted {counts[payload.nanos]}: {payload}"
                )
        elif group[0] == "keyed":
            self._judge_keyed(group, payloads, counts)
        else:
            total = sum(counts.values())
            owed = any(map(self._is_owed, payloads))
            if total > 1 or (owed and total == 0):
                self.violation(f"{group}: counted {total} times, {'answered' if owed else 'not answered'}: {payloads}")

    def _judge_keyed(self, group: tuple[object, ...], payloads: list[Payload], counts: dict[int, int]) -> None:
        bodies = {payload.body for payload in payloads if counts[payload.nanos]}
        if len(bodies) > 1:
            self.violation(f"{group}: events of {len(bodies)} bodies count: {payloads}")
        if any(count > 1 for count in counts.values()):
            self.violation(f"{group}: an index counts twice: {payloads}")
        owed = [payload for payload in payloads if self._is_owed(payload)]
        if owed and not bodies:
            self.violation(f"{group}: answered, and nothing counts: {payloads}")
        for payload in owed:
            if payload.body in bodies and not counts[payload.nanos]:
                self.violation(f"{group}: an answered index does not count: {payload}")

    def _voids(self, rows: Sequence[Any]) -> None:
        """A void that was answered is there, and each is there once."""
        stored = Counter(_named(row[3]) for row in rows if row[3].event_type == VOID)
        for name, payloads in self.clients.voids.items():
            owed = any(map(self._is_owed, payloads))
            if stored[name] > 1 or (owed and not stored[name]):
                self.violation(f"void of {name}: stored {stored[name]} times, {'answered' if owed else 'not answered'}")

    def _usage(self, rows: Sequence[Any]) -> None:
        """Usage per user, meter and window is what the stored events that no void names add up to."""
        wanted: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        voided = {_named(row[3]) for row in rows if row[3].event_type == VOID}
        for _, _, revision, event, parts in rows:
            if event.event_type == VOID or (event.id is not None and _named(event) in voided):
                continue
            window = event.time_us // MICROSECONDS_PER_WINDOW
            for meter, nanos in _shares(revision, event.event_type, event.nanos, len(parts)):
                figure = wanted[event.user_id, meter, window]
                figure[0] += nanos
                figure[1] += len(parts)
        there = {
            (counter.user_id, counter.meter, counter.window): list(row)
            for (_, counter), row in self.database.tables["usage"].items()
            if any(row)  # what was voided leaves a row of nothing
        }
        if there != dict(wanted):
            names = {name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name)}
            self.violation(f"usage differs from the events: {sorted(names)[:3]}")

    def _values(self, rows: Sequence[Any]) -> None:
        """What is kept of single events is there for each event that counts, once, where the meters say so."""
        if "detailed" not in self.database.tables["revisions"].get((1,), ""):
            wanted: list[Any] = []
        else:
            voided = {_named(row[3]) for row in rows if row[3].event_type == VOID}
            wanted = sorted(
                (event.time_us, event.key, "calls", event.user_id)
                for _, _, revision, event, _ in rows
                if revision == 1
                and event.event_type == "api_call"
                and (event.id is None or _named(event) not in voided)
            )
        kept = self.database.tables["usage_values"].items()
        if sorted((*key, row[0]) for key, row in kept) != wanted:
            self.violation(f"{len(kept)} values are kept, of {len(wanted)} events that count")

    def _totals(self) -> None:
        """What Redis shows as committed is usage."""
        wanted: dict[tuple[int, bytes, bytes], bytes] = {}
        for (shard, counter), (nanos, events) in self.database.tables["usage"].items():
            name = b"%d:%s" % (counter.window // 96, counter.user_id.encode())
            field = f"{counter.meter}\x1f{counter.window:08x}\x1f{counter.dimensions}".encode()
            wanted[shard, name, field] = f"{events} {_decimal(nanos)}".encode()
        there: dict[tuple[int, bytes, bytes], bytes] = {}
        for shard in range(self.database.tables["ledger"][()][1]):
            state = self.server.data.get(b"{t1:%d}" % shard) or {}
            stem = b"{t1:%d}%s:totals:" % (shard, state.get(b"generation", b"?"))
            for key, value in self.server.data.items():
                if key.startswith(stem):
                    there.update({(shard, key[len(stem) :], field): text for field, text in value.items()})
        missing = {name for name in wanted if name not in there}
        wrong = {name for name in there if there[name] != wanted.get(name)}
        if wrong or (missing and not self.totals_evicted):
            self.violation(f"totals in Redis differ from usage: {sorted(wrong | missing)[:3]}")

    def _tables(self, hosts: Sequence[SidecarHost]) -> None:
        """Positions account for every event; holes are only where records were lost."""
        stored = sum(len(row[4]) for row in self.database.tables["events"].values())
        positions: list[Place] = list(self.database.tables["positions"].values())
        inserted = sum(
            count for row in positions for outcome, count in row.events.items() if outcome.name == "INSERTED"
        )
        if inserted != stored:
            self.violation(f"positions say that {inserted} events were inserted, {stored} are there")
        for row in positions:
            if sum(row.events.values()) != row.running.events or sum(row.nanos.values()) != row.running.nanos:
                self.violation(f"a position does not account for every event: {row}")
        if self.database.tables["holes"] and not self.disks_lost:
            self.violation(f"there are holes, and nothing was lost: {self.database.tables['holes']}")
        for host in hosts:
            for problem in host.problems:
                self.violation(f"{host.name}: {problem}")


def _named(event: Any) -> tuple[str, str, int]:
    """Returns what a void and its event have in common."""
    return event.user_id, event.id or "", event.time_us


def _is_full(host: SidecarHost, removed: int) -> bool:
    """Returns whether the hold gives way to the bound on the journal's size."""
    used = sum(len(file.content) for path, file in host.platter.files.items() if path.suffix == ".segment")
    return (used + removed) * 2 > host.limits.journal_bytes_max


def _decimal(nanos: int) -> str:
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, fraction = divmod(nanos, 1_000_000_000)
    text = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{text}" if text else f"{sign}{whole}"


def _shares(revision: int, event_type: str, nanos: int, events: int) -> list[tuple[str, int]]:
    """Returns the meters that events feed: revision 1 also counts calls."""
    if revision == 1 and event_type == "api_call":
        return [("api_call", nanos), ("calls", events * 1_000_000_000)]
    return [(event_type, nanos)]
