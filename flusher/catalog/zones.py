"""Time zones by their IANA names, from the package `tzdata` alone: every machine has the same rules."""

from datetime import UTC, tzinfo
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo


@cache
def zone_names() -> frozenset[str]:
    """Return the name of every time zone."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("ascii").split())


@cache
def zone_named(name: str) -> tzinfo:
    """Return a time zone. Raises ValueError for a name that is not in `zone_names`."""
    if name == "UTC":
        return UTC
    if name not in zone_names():
        raise ValueError(f"expected an IANA time zone, got {name!r}")
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)
