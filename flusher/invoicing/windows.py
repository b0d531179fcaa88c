"""The 15-minute windows that usage is kept in, and the parts of them that a period cuts off. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

from flusher.pricing.period import Period
from sidecar.contract.meters import WINDOW_S

_WINDOW: Final = timedelta(seconds=WINDOW_S)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def whole_windows(period: Period) -> Period:
    """Return the part of a period that consists of whole windows; empty, at its start, where there is none."""
    start, end = _whole(period)
    return Period(start, end) if start < end else Period(period.start, period.start)


def partial_windows(period: Period) -> list[Period]:
    """Return what is left of a period when its whole windows are taken out: up to two parts, each inside a window."""
    start, end = _whole(period)
    if start > end:
        return [period]
    parts = (Period(period.start, start), Period(end, period.end))
    return [part for part in parts if part.start < part.end]


def _whole(period: Period) -> tuple[datetime, datetime]:
    """Return the start rounded up to that of a window and the end rounded down: they may have changed places."""
    start = _EPOCH - (_EPOCH - period.start) // _WINDOW * _WINDOW
    return start, _EPOCH + (period.end - _EPOCH) // _WINDOW * _WINDOW
