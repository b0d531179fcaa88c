"""The flusher's settings: each declared once, with its meaning, unit and default; read from flags and environment."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from flusher.summed import KeyedRows
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import (
    LOG_LEVELS,
    Address,
    Setting,
    count,
    read_address,
    read_level,
    read_redis_url,
    read_settings,
    seconds,
    whole_seconds,
)
from sidecar.contract.settings import add_flags as add_flags_of

FOREVER: Final = "forever"


def read_database_url(text: str) -> str:
    """Return the address of a PostgreSQL: a URL, or libpq's `key=value` form."""
    if not text.startswith(("postgresql://", "postgres://")) and not re.match(r"\s*\w+\s*=", text, re.ASCII):
        scheme = text.partition("://")[0] if "://" in text else "no scheme"
        raise ValueError(f"expected postgresql://USER@HOST/NAME, got {scheme}")
    return text


def read_events_days(text: str) -> int | None:
    """Return for how many days events are kept, None for ever.

    At least 100: by then a month is invoiced, and what came late for it adjusted.
    """
    if text == FOREVER:
        return None
    try:
        return count(100, 36_500, "days")(text)
    except ValueError as error:
        raise ValueError(f"{error}; or {FOREVER}") from error


def read_keyed_rows(text: str) -> KeyedRows:
    """Return what PostgreSQL keeps of events under an Idempotency-Key."""
    try:
        return KeyedRows(text)
    except ValueError as error:
        raise ValueError(f"expected {' or '.join(KeyedRows)}, got {text!r}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a flusher runs with. Made by `settings_from`."""

    redis_url: Annotated[
        str,
        Setting(None, read_redis_url, "URL", "Redis or Valkey; `REDIS_URL` when it is not set", "REDIS_URL"),
    ]
    database_url: Annotated[
        str,
        Setting(None, read_database_url, "URL", "PostgreSQL; `DATABASE_URL` when it is not set", "DATABASE_URL"),
    ]
    flush_interval_s: Annotated[
        float, Setting("0.5", seconds(0.01, 60), "seconds", "from the start of a cycle to the start of the next")
    ]
    claims_keep_days: Annotated[
        int,
        Setting(
            "35", count(1, 3_650, "days"), "days", "how long a repeat of an `id` alone or an `Idempotency-Key` is known"
        ),
    ]
    keyed_rows: Annotated[
        KeyedRows,
        Setting(
            "single",
            read_keyed_rows,
            "word",
            "what PostgreSQL keeps of events under an `Idempotency-Key`: `single` events, or `summed` rows where they "
            "feed only sums and counts",
        ),
    ]
    events_keep_days: Annotated[
        int | None,
        Setting(
            FOREVER,
            read_events_days,
            "days",
            "how long single events are kept, from 100; months that end earlier are dropped, usage and invoices stay",
        ),
    ]
    finalization_window_s: Annotated[
        int,
        Setting(
            "3600",
            whole_seconds(0, 72 * 3600),
            "seconds",
            "how long a sidecar that goes on under another id may be silent before no period waits for its old one; "
            "the window of `taximeter invoice`",
        ),
    ]
    health_http: Annotated[
        Address | None,
        Setting(
            "127.0.0.1:8131",
            read_address,
            "HOST:PORT",
            "where /livez, /readyz and /metrics are served; empty for nowhere",
        ),
    ]
    log_level: Annotated[
        str, Setting("info", read_level, "level", f"least severe log line on stderr: {', '.join(LOG_LEVELS)}")
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting."""
    add_flags_of(parser, Settings)


def settings_from(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Return the settings that flags (by name; None when not given) and then the environment give.

    Raises TaximeterError `config_invalid` that names every setting that can't be used.
    """
    settings, problems = read_settings(Settings, flags, environment)
    if settings is None:
        raise TaximeterError("config_invalid", "; ".join(problems))
    return settings
