"""Bugs of the protocol, planted on purpose: the oracle has to object to each, or it is blind.

A bug is a patch of the product's code for as long as a history runs. Each is a rule of the protocol dropped or bent,
or a mistake that others have made.
"""

from tests.simulation.planted import flusher_bugs, sidecar_bugs
from tests.simulation.planted.table import BUGS

__all__ = ["BUGS", "flusher_bugs", "sidecar_bugs"]
