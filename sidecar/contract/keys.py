"""Every Redis key, in one place. `README.md` beside this file is the schema: type, TTL, writer and reader of each.

All keys of a shard have its hash tag, so that a script may touch them together on a cluster. All but the state have
the shard's generation in their name (rule 5): a key of another generation is never read.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sidecar.contract.meters import WINDOW_S, Counter

CONTRACT_VERSION: Final = 1
PREFIX: Final = f"t{CONTRACT_VERSION}"

COMMON: Final = f"{{{PREFIX}}}"  # the hash tag of what belongs to no shard: one server of a cluster has all of it
LEDGER: Final = f"{COMMON}:ledger"  # hash: what every sidecar has to know
METERS: Final = f"{COMMON}:meters"  # hash: revision -> meters
USERS: Final = f"{COMMON}:users"  # hash: user -> customer, where they differ
ASKING: Final = f"{COMMON}:asking"  # hash: producer -> what it says of itself, until it is registered
USAGE_QUESTIONS: Final = f"{COMMON}:usage"  # list: what sidecars ask about usage, oldest first
GENERATION_CHARS: Final = 8
WINDOWS_PER_DAY: Final = 86_400 // WINDOW_S

SEPARATOR: Final = "\x1f"  # no string of an event may hold a control character, so fields are unambiguous


class EpochKeys(NamedTuple):
    """The three keys of an epoch, open or sealed."""

    stream: str
    counters: str
    members: str


def shard_tag(shard: int) -> str:
    """Return the hash tag that every key of the shard starts with."""
    return f"{{{PREFIX}:{shard}}}"


def state(shard: int) -> str:
    """Return the key of the shard's state: a hash, and the only key without a generation in its name."""
    return shard_tag(shard)


def open_epoch(shard: int, generation: str) -> EpochKeys:
    """Return the keys of the epoch that ingest writes to."""
    base = f"{shard_tag(shard)}{generation}:"
    return EpochKeys(base + "stream", base + "counters", base + "index")


def sealed_epoch(shard: int, generation: str, token: str) -> EpochKeys:
    """Return the keys of the sealed epoch with this token."""
    base = f"{shard_tag(shard)}{generation}:{token}:"
    return EpochKeys(base + "stream", base + "counters", base + "index")


def identity_prefix(shard: int, generation: str) -> bytes:
    """Return what the 16 bytes of an event key or a claim key follow, to make the key that deduplicates it."""
    return f"{shard_tag(shard)}{generation}.".encode()


def staged_state(shard: int, generation: str) -> str:
    """Return the key under which the state of a generation is written before it is opened."""
    return f"{shard_tag(shard)}{generation}:state"


def totals(shard: int, generation: str, user_id: str, day: int) -> str:
    """Return the key of a user's committed totals on a day, the number of days since the epoch, UTC."""
    return f"{shard_tag(shard)}{generation}:totals:{day}:{user_id}"


def user_of_totals(key: bytes) -> bytes | None:
    """Return the user whose totals a key holds, or None for any other key."""
    _, mark, rest = key.partition(b":totals:")
    return rest.partition(b":")[2] if mark else None


def proof_answers(question: str) -> str:
    """Return the key under which the sidecars answer a question of `taximeter verify`."""
    return f"{COMMON}:proof:{question}"


def usage_answer(question: str) -> str:
    """Return the key under which a flusher answers a question about usage."""
    return f"{COMMON}:usage:{question}"


PROOF_QUESTION: Final = f"{COMMON}:proof"


def generation_of(key: bytes) -> tuple[int, str] | None:
    """Return the shard and the generation in a key's name, or None when it has none or is not ours."""
    if not key.startswith(b"{" + PREFIX.encode() + b":"):
        return None
    tag, brace, rest = key.partition(b"}")
    if not brace or len(rest) <= GENERATION_CHARS:
        return None
    shard = tag.partition(b":")[2]
    generation = rest[:GENERATION_CHARS]
    return (int(shard), generation.decode()) if shard.isdigit() and generation.isascii() else None


def position_field(producer: str) -> str:
    """Return the state's field for how far a producer's batches are applied in Redis."""
    return "p:" + producer


def committed_field(producer: str) -> str:
    """Return the state's field for how far a producer's batches are committed in Postgres."""
    return "c:" + producer


def counter_field(counter: tuple[str, str, int, str]) -> str:
    """Return the member of the index, and the stem of the fields of the counters, of a `Counter`.

    Members of one user, and of one user and meter in the order of time, are neighbours in the index.
    """
    user_id, meter, window, dimensions = counter
    return SEPARATOR.join((user_id, meter, f"{window:08x}", dimensions))


def decode_counter_field(field: str) -> Counter:
    """Return the counter of an index member. Raises ValueError on anything else."""
    user_id, meter, window, dimensions = field.split(SEPARATOR)
    return Counter(user_id, meter, int(window, 16), dimensions)


def counter_range(user_id: str, meter: str | None, first: int, last: int) -> tuple[str, str]:
    """Return the bounds, for ZRANGEBYLEX, of the members of a user, and a meter from window `first` up to `last`.

    Without a meter every window of the user is inside: the caller picks.
    """
    if meter is None:
        return f"[{user_id}{SEPARATOR}", f"({user_id}{chr(ord(SEPARATOR) + 1)}"
    stem = f"{user_id}{SEPARATOR}{meter}{SEPARATOR}"
    return f"[{stem}{first:08x}", f"({stem}{last:08x}"


# The fields of one counter: its member, the separator, and one of these.
COUNT_SUFFIX: Final = SEPARATOR + "n"
LIMB_SUFFIXES: Final = (SEPARATOR + "0", SEPARATOR + "1", SEPARATOR + "2")


def total_field(counter: Counter) -> str:
    """Return the field of a counter in the totals of its user and day."""
    return SEPARATOR.join((counter.meter, f"{counter.window:08x}", counter.dimensions))


def decode_total_field(user_id: str, field: str) -> Counter:
    """Return the counter of a field of the totals of `user_id`. Raises ValueError on anything else."""
    meter, window, dimensions = field.split(SEPARATOR)
    return Counter(user_id, meter, int(window, 16), dimensions)


def day_of(window: int) -> int:
    """Return the day, in days since the epoch, that a window lies in."""
    return window // WINDOWS_PER_DAY


def days(first_window: int, last_window: int) -> Iterator[int]:
    """Yield the days that the windows from `first_window` up to, and not with, `last_window` lie in."""
    if last_window > first_window:
        yield from range(day_of(first_window), day_of(last_window - 1) + 1)


LIVE_DAYS: Final = 31 + 31 + 1  # the open and the previous month, and a day of any time zone


def live_from_day(now: datetime) -> int:
    """Return the first day whose totals Redis holds, in days since the epoch."""
    return (now - timedelta(days=LIVE_DAYS) - datetime(1970, 1, 1, tzinfo=UTC)).days


def live_since(now: datetime) -> datetime:
    """Return the start of that day."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=live_from_day(now))
