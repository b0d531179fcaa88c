"""The meters that batches were counted under, by the number of their revision."""

from collections.abc import Callable
from typing import Final

import msgspec

from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import Meter, Revision, decode_revision

_NONE_YET: Final = -1


class Revisions:
    """Every revision so far. `read(after)` returns those with higher numbers, as JSON text."""

    def __init__(self, read: Callable[[int], dict[int, str]]) -> None:
        self._read = read
        self._known: dict[int, Revision] = {}
        self._keeping: dict[tuple[int, int], Revision] = {}

    def refresh(self) -> None:
        """Read those that have come."""
        for number, meters in self._read(max(self._known, default=_NONE_YET)).items():
            self._known[number] = decode_revision(number, meters)

    def numbered(self, number: int) -> Revision:
        """Return a revision. Raises TaximeterError `codec_unknown` for one that there is not."""
        if number not in self._known:
            self.refresh()
        if number not in self._known:
            raise TaximeterError("codec_unknown", f"a batch names revision {number} of the meters, which is not known")
        return self._known[number]

    def keeping(self, number: int) -> Revision:
        """Return a revision that counts as this one does, and keeps the values that the newest one keeps.

        A meter may come to keep them while batches of before are on their way: then they keep theirs as well.
        """
        newest = max(self._known, default=_NONE_YET)
        if number not in self._known or number == newest:
            return self.numbered(number)
        if (number, newest) not in self._keeping:
            self._keeping[number, newest] = keeping_as(self._known[number], self._known[newest])
        return self._keeping[number, newest]


def keeping_as(revision: Revision, newest: Revision) -> Revision:
    """Return a revision that counts as `revision` does, and keeps values of the meters of which `newest` does.

    That may be a meter that had none of its own yet: the sum of an event type's units.
    """
    kept = {meter.name for meter in newest.meters if meter.keeps_values}
    meters = [
        msgspec.structs.replace(meter, detailed=True) if meter.name in kept else meter for meter in revision.meters
    ]
    named = {name for meter in revision.meters for name in (meter.name, meter.event_type)}
    return Revision(revision.number, [*meters, *(Meter(name, name, detailed=True) for name in sorted(kept - named))])
