"""What became of the events of a meter, in numbers and one by one."""

from dataclasses import dataclass
from typing import Any, NamedTuple


class Stats(NamedTuple):
    """Counts of events since the process began, or was forked.

    Every event that was tracked is in exactly one of `accepted`, `duplicates`, `conflicts`, `rejected`, `dropped` and
    `waiting`. `sent`: handed to the sidecar at least once. `duplicates`: were there already, be it from an attempt
    whose answer was lost. `retried`: sent again, counted at each repeat. `dropped`: lost to a full queue or to the
    deadline of `close`. `waiting`: not answered yet. `problem`: why the last attempt failed, empty when it did not.
    """

    sent: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    retried: int
    dropped: int
    waiting: int
    problem: str


class Rejected(NamedTuple):
    """An event that will not be counted: the event as it was sent, a code of the sidecar's vocabulary, and why.

    The code is `conflict` for one that was accepted before with other content.
    """

    event: dict[str, Any]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the event at `index` of a batch, where it was not simply accepted."""

    index: int
    code: str
    message: str


class Settled(NamedTuple):
    """A batch that was answered: counts over all of its events, and results of those that were not accepted."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    results: list[Result]


class Refused(NamedTuple):
    """A batch that was refused whole, for good: sending it again would change nothing."""

    code: str
    message: str


class Later(NamedTuple):
    """A batch that could not be taken now, and after how many seconds to send it again; None when nobody said."""

    problem: str
    after_s: float | None


Verdict = Settled | Refused | Later
