"""A body of events, whichever way it came, to its outcome: the one way into the ingest core."""

import os
from collections.abc import Mapping, Sized
from typing import Final, NamedTuple, Protocol

from sidecar import answers
from sidecar.answers import Outcome
from sidecar.contract.codes import TaximeterError
from sidecar.contract.columns import Columns
from sidecar.contract.identity import body_digest
from sidecar.contract.meters import Revision
from sidecar.errors import Unavailable
from sidecar.ingest import Receipt
from sidecar.intake import Intake
from sidecar.metrics import Metrics
from sidecar.reading import Reading, Terms, read

NOTHING: Final = Receipt(applied=True)
KEY_REUSED: Final = "used before with another body; nothing was applied, mended events need a new key"


class Core(Protocol):
    """What is asked of the ingest core; see `sidecar.ingest.Ingest`."""

    @property
    def revision(self) -> Revision:
        """The meters in force."""

    @property
    def event_floor_us(self) -> int:
        """Events at or before this time are too old."""

    @property
    def lanes(self) -> Sized:
        """One for each shard."""

    def now_us(self) -> int:
        """Return the time for events that have none."""

    def unready(self) -> TaximeterError | None:
        """Return why no event can be accepted now, or None."""

    async def submit(
        self, shares: Mapping[int, Columns], key: str | None, digest: bytes | None, assigned_us: int
    ) -> Receipt:
        """Make events durable and say what became of them. Raises Unavailable."""


class Submission(NamedTuple):
    """A request that brings events, or `voids` of events, as far as its head says."""

    media_type: str
    key: str | None = None
    atomic: bool = False
    with_ids: bool = False
    single: bool = False
    voids: bool = False


class Taken(NamedTuple):
    """What became of a body. With `refused_whole` or `receipt.reused` nothing of it was applied."""

    reading: Reading
    receipt: Receipt
    outcome: Outcome
    refused_whole: bool = False

    @property
    def nothing_accepted(self) -> bool:
        """Whether there were events, and every one was rejected or in conflict."""
        return bool(self.reading.total) and self.outcome.rejected + (self.outcome.conflicts or 0) == self.reading.total


class Taking:
    """Reads bodies and submits their events, each body once."""

    def __init__(self, ingest: Core, intake: Intake, metrics: Metrics, *, request_events_max: int) -> None:
        self._ingest = ingest
        self._intake = intake
        self._metrics = metrics
        self.request_events_max = request_events_max

    async def take(self, submission: Submission, body: bytes) -> Taken:
        """Return what became of a body that the intake holds; its room is given back.

        Raises TaximeterError for a body that can't be read, Unavailable when its events are not durable.
        """
        try:
            reading, now_us = self._read(submission, body)
            receipt = NOTHING
            if submission.atomic and reading.rejections:
                refused = Taken(reading, receipt, answers.refused_whole(reading), refused_whole=True)
                return self._counted(refused, submission)
            if reading.shares:
                digest = body_digest(submission.media_type, body) if submission.key is not None else None
                receipt = await self._ingest.submit(reading.shares, submission.key, digest, now_us)
        finally:
            self._intake.release(len(body))
        return self._counted(Taken(reading, receipt, answers.outcome_of(reading, receipt)), submission)

    def _read(self, submission: Submission, body: bytes) -> tuple[Reading, int]:
        """Return what the body holds and the time that its events without one were given.

        No `await` may stand between the two and `submit`: the time would be before a watermark by then (rule 10).
        """
        problem = self._ingest.unready()
        if problem is not None:
            raise problem if isinstance(problem, Unavailable) else Unavailable(problem.code, problem.message)
        now_us = self._ingest.now_us()
        terms = Terms(
            now_us=now_us,
            floor_us=self._ingest.event_floor_us,
            revision=self._ingest.revision,
            shards=len(self._ingest.lanes),
            random_bytes=os.urandom,
            idempotency_key=submission.key,
            events_max=self.request_events_max,
        )
        reading = read(submission.media_type, body, terms, voids=submission.voids)
        total = reading.total
        if submission.single and total != 1:
            raise TaximeterError("body_invalid", f"body: expected one event, got {total}; use /v1/events")
        self._metrics.request_events.observe(total)
        return reading, now_us

    def _counted(self, taken: Taken, submission: Submission) -> Taken:
        count = self._metrics.voids_taken if submission.voids else self._metrics.events_taken
        if taken.receipt.reused:
            count("conflict", taken.reading.accepted)
            return taken
        if taken.outcome.accepted:
            count("accepted" if taken.receipt.applied else "journaled", taken.outcome.accepted)
        for entry in taken.outcome.results:
            count(entry.code)
        return taken
