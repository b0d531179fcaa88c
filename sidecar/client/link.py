"""A connection to a sidecar, as the courier sees it."""

import socket
from typing import Protocol

from sidecar.client.backlog import Batch
from sidecar.client.tally import Verdict


class LinkError(Exception):
    """The connection can't be gone on with; what it has not answered is sent again on another one."""


class Link(Protocol):
    """One connection. Each method raises LinkError when it is lost."""

    # What the other end takes in one batch, as far as it said.
    events_max: int
    bytes_max: int

    @property
    def unanswered(self) -> list[Batch]:
        """The batches that were sent and not answered, oldest first."""

    @property
    def has_room(self) -> bool:
        """Whether another batch may be sent now."""

    @property
    def deadline_s(self) -> float | None:
        """When an answer is overdue, on the monotonic clock; None while none is expected."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when answers are there."""

    def send(self, batch: Batch) -> None:
        """Send a batch."""

    def receive(self) -> list[tuple[Batch, Verdict]]:
        """Return the answers that are there; may be none."""

    def close(self) -> None:
        """Close it. What is unanswered stays readable."""


def connected(path: str, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to a Unix socket. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
