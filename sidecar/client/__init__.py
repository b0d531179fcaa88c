"""The client library: `Meter`, which an app calls for every use, and what it tells the app."""

from sidecar.client.meter import Meter, QueueFullError
from sidecar.client.tally import Rejected, Stats

__all__ = ["Meter", "QueueFullError", "Rejected", "Stats"]
