"""Events gathered column by column, on their way into a batch."""

from collections.abc import Iterable, Sequence
from typing import Self

from sidecar.contract.codec import CODEC_VERSION, Batch, Claim, column
from sidecar.contract.event import Content, Event, Identity


class Columns:
    """Some events of one shard. The columns are those of `Batch`, as lists: whoever appends keeps them in step.

    `claim_key` is that of the request's share when events of it are INDEXED.
    """

    __slots__ = (
        "_known",
        "claim_key",
        "content_of",
        "contents",
        "fingerprints",
        "identities",
        "ids",
        "indices",
        "keys",
        "times_us",
    )

    def __init__(self, claim_key: bytes | None = None) -> None:
        self.claim_key = claim_key
        self.contents: list[Content] = []
        self._known: dict[Content, int] = {}  # their places, once others were added
        self.content_of: list[int] = []
        self.times_us: list[int] = []
        self.identities = bytearray()
        self.indices: list[int] = []
        self.keys: list[bytes] = []
        self.fingerprints: list[bytes] = []
        self.ids: list[str] = []

    def __len__(self) -> int:
        return len(self.identities)

    def extend(self, other: "Columns") -> None:
        """Add the events of `other` behind these. Contents that both have are one from then on."""
        known = self._known = self._known or {content: number for number, content in enumerate(self.contents)}
        numbers: list[int] = []
        for content in other.contents:
            number = known.get(content)
            if number is None:
                number = known[content] = len(self.contents)
                self.contents.append(content)
            numbers.append(number)
        self.content_of += [numbers[number] for number in other.content_of]
        self.times_us += other.times_us
        self.identities += other.identities
        self.indices += other.indices
        self.keys += other.keys
        self.fingerprints += other.fingerprints
        self.ids += other.ids

    def ids_by_place(self) -> list[str | None]:
        """Return every event's id."""
        ids = iter(self.ids)
        return [next(ids) if identity <= Identity.CLAIMED else None for identity in self.identities]

    def batch(
        self, shard: int, revision: int, accepted_at_us: int, watermark_us: int, claims: Sequence[Claim] = ()
    ) -> Batch:
        """Return the batch of these events."""
        return Batch(
            CODEC_VERSION,
            shard,
            revision,
            accepted_at_us,
            watermark_us,
            tuple(claims),
            tuple(self.contents),
            column("H", self.content_of),
            column("q", self.times_us),
            bytes(self.identities),
            column("H", self.indices),
            b"".join(self.keys),
            b"".join(self.fingerprints),
            tuple(self.ids),
        )

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Return events as columns. INDEXED ones lose their keys, which follow from a claim of the batch."""
        columns = cls()
        numbers: dict[Content, int] = {}
        for event in events:
            content = Content(event.user_id, event.source, event.event_type, event.units, event.properties)
            columns.content_of.append(numbers.setdefault(content, len(numbers)))
            columns.times_us.append(event.time_us)
            columns.identities.append(event.identity)
            columns.indices.append(event.index)
            if event.identity != Identity.INDEXED:
                columns.keys.append(event.key)
            if event.identity <= Identity.CLAIMED:
                columns.fingerprints.append(event.fingerprint)
                columns.ids.append(event.id or "")
        columns.contents += numbers
        return columns
