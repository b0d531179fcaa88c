"""Independent clients: each writes down what it is about to send, sends it, notes the answer, and tries again.

A payload is one event as its client means it; its units are a number that no other payload has, so that whatever is
counted can be traced to it. Voids have no units: they are known by the event that they name.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import VOID_TYPE, Event, Identity, compact_units
from sidecar.contract.identity import claim_key, event_key, fingerprint, indexed_key, shard_of, void_key
from sidecar.contract.units import NANO
from sidecar.ingest import Receipt
from tests.simulation.machines import SidecarHost
from tests.simulation.world import WALL_BASE_S, World

PATIENCE_S: Final = 4.0
USERS: Final = tuple(f"user-{number}" for number in range(6))


class Fate(NamedTuple):
    """What a client was told of a payload, by whom, and when."""

    said: str  # accepted, duplicate, conflict, journaled, refused, unknown
    host: str
    at_s: float


@dataclass
class Payload:
    """One event. `group` names its identity: whatever has the same one counts once, all together."""

    nanos: int
    user_id: str
    event_type: str
    identity: Identity
    group: tuple[object, ...]
    id: str | None = None
    time_us: int | None = None
    index: int = 0
    body: int = 0
    sent: int = 0
    fates: list[Fate] = field(default_factory=list)


@dataclass
class Request:
    """What one call brings. From its second try on it has `more` payloads, which were not valid at first."""

    payloads: list[Payload]
    more: list[Payload]
    key: str | None
    body: int
    tries: int
    again: float  # chance to send it again although it was answered

    @property
    def digest(self) -> bytes | None:
        """The digest of the body, under an Idempotency-Key."""
        return None if self.key is None else b"body%012d" % self.body


class Clients:
    """Sends requests to hosts and remembers everything about them."""

    def __init__(self, world: World, hosts: Sequence[SidecarHost], shards: int) -> None:
        self.world = world
        self.payloads: dict[int, Payload] = {}  # by nanos
        self.voids: dict[tuple[str, str, int], list[Payload]] = defaultdict(list)  # by user, id and time
        self.open = 0  # tries that are under way
        self._hosts = hosts
        self._shards = shards
        self._serial = 0
        self._ids = 0
        self._timed: list[Payload] = []
        self._keys: list[tuple[str, list[str]]] = []
        self._requests: list[Request] = []

    # -- what is said

    def _payload(self, identity: Identity, group: tuple[object, ...], user_id: str, **more: object) -> Payload:
        self._serial += 1
        nanos = self._serial * NANO + (self._serial if self._serial % 3 == 0 else 0)
        event_type = "api_call" if self.world.rng.random() < 0.8 else "storage"
        made = Payload(nanos, user_id, event_type, identity, group)
        for name, value in more.items():
            setattr(made, name, value)
        self.payloads[nanos] = made
        return made

    def _void(self, rng: Random) -> Payload:
        """Says that an event is void: mostly one that was sent, else one that may come."""
        user_id, number = rng.choice(USERS), self._ids + 1
        name, time_us = _timed(number)
        if self._timed and rng.random() < 0.8:
            voided = rng.choice(self._timed)
            user_id, name, time_us = voided.user_id, voided.id or "", voided.time_us or 0
        group = (user_id, name, time_us)
        made = Payload(0, user_id, VOID_TYPE, Identity.TIMED, ("void", *group), id=name, time_us=time_us)
        self.voids[group].append(made)
        return made

    def _single(self, rng: Random) -> Payload:
        if rng.random() < 0.1:
            return self._void(rng)
        user_id = rng.choice(USERS)
        kind = rng.choice((Identity.TIMED, Identity.CLAIMED, Identity.MADE))
        if kind == Identity.MADE:
            return self._payload(kind, ("made", self._serial), user_id)
        fresh = self._ids == 0 or rng.random() < 0.85
        if fresh:
            self._ids += 1
        number = self._ids if fresh else rng.randint(1, self._ids)  # an id that was used may be a conflict
        if kind == Identity.CLAIMED:
            name = f"claimed-{number}"
            return self._payload(kind, (kind, user_id, name), user_id, id=name)
        name, time_us = _timed(number)
        made = self._payload(kind, (kind, user_id, name), user_id, id=name, time_us=time_us)
        self._timed.append(made)
        return made

    def _keyed(self, rng: Random) -> Request:
        users = [rng.choice(USERS) for _ in range(rng.randint(1, 4))]
        key, body = f"key-{len(self._keys)}", len(self._requests)
        if self._keys and rng.random() < 0.15:
            key, users = rng.choice(self._keys)  # the key with another body
        else:
            self._keys.append((key, users))
        made = [
            self._payload(Identity.INDEXED, ("keyed", key, shard_of(user, self._shards)), user, index=index, body=body)
            for index, user in enumerate(users)
        ]
        late = [payload for payload in made[1:] if rng.random() < 0.2]
        first = [payload for payload in made if payload not in late]
        return Request(first, late, key, body, tries=rng.randint(1, 4), again=0.3 if late else 0.1)

    def new_request(self) -> None:
        """Says something new."""
        rng = self.world.rng
        if rng.random() < 0.35:
            request = self._keyed(rng)
        else:
            payloads = [self._single(rng) for _ in range(rng.randint(1, 4))]
            if len({payload.group for payload in payloads}) < len(payloads) and rng.random() < 0.5:
                payloads = payloads[:1]
            request = Request(payloads, [], None, len(self._requests), tries=rng.randint(1, 4), again=0.15)
        self._requests.append(request)
        self._try(request, 1)

    # -- how it is sent

    def _try(self, request: Request, number: int) -> None:
        world = self.world
        host = world.rng.choice(self._hosts)
        payloads = sorted(request.payloads + (request.more if number > 1 else []), key=lambda one: one.index)
        for payload in payloads:
            payload.sent += 1
        self.open += 1
        told = [False]

        def answered(answer: Receipt | TaximeterError | None) -> None:
            if told[0]:
                return
            told[0] = True
            self.open -= 1
            said = _said(payloads, answer)
            for payload, word in zip(payloads, said, strict=True):
                payload.fates.append(Fate(word, host.name, world.now_s))
            unsure = answer is None or isinstance(answer, TaximeterError)
            if number < request.tries and (unsure or world.rng.random() < request.again):
                world.after(world.rng.uniform(0.0, 1.5), None, self._try, request, number + 1)

        world.log(f"a client sends {len(payloads)} events to {host.name}, key {request.key}, try {number}")
        host.submit(self._maker(payloads, request.key), request.key, request.digest, answered)
        world.after(PATIENCE_S, None, answered, None)

    def _maker(self, payloads: Sequence[Payload], key: str | None) -> Callable[[int], list[Event]]:
        def make(assigned_us: int) -> list[Event]:
            return [self._event(payload, key, assigned_us) for payload in payloads]

        return make

    def _event(self, payload: Payload, key: str | None, assigned_us: int) -> Event:
        said = f"{payload.event_type} {payload.nanos} {payload.time_us}".encode()
        if payload.id is not None:
            identifier = event_key(payload.user_id, "", payload.id)
        elif key is not None:
            identifier = indexed_key(claim_key(key, shard_of(payload.user_id, self._shards)), payload.index)
        else:
            identifier = self.world.rng.randbytes(16)
        if payload.event_type == VOID_TYPE and payload.time_us is not None:
            identifier = void_key(identifier, payload.time_us)
        return Event(
            identifier,
            fingerprint(said),
            int(payload.identity),
            payload.index,
            assigned_us if payload.time_us is None else payload.time_us,
            payload.user_id,
            "",
            payload.id,
            payload.event_type,
            compact_units(payload.nanos),
            '{"reason":"a mistake"}' if payload.event_type == VOID_TYPE else "",
        )


def _timed(number: int) -> tuple[str, int]:
    """Returns the id and the time, in microseconds, of the events of a number."""
    return f"timed-{number}", int(WALL_BASE_S * 1_000_000) + number * 97_000_000


def _said(payloads: Sequence[Payload], answer: Receipt | TaximeterError | None) -> list[str]:
    if answer is None:
        return ["unknown"] * len(payloads)
    if isinstance(answer, TaximeterError):
        return ["refused"] * len(payloads)
    if not answer.applied:
        return ["journaled"] * len(payloads)
    if answer.reused and not answer.conflicts:
        return ["conflict"] * len(payloads)
    words = dict.fromkeys(answer.duplicates, "duplicate") | dict.fromkeys(answer.conflicts, "conflict")
    # An event without an index of its own was sent under its place (`tests.contract.values.shares`).
    indices = [one.index if one.identity == Identity.INDEXED else place for place, one in enumerate(payloads)]
    return [words.get(index, "accepted") for index in indices]
