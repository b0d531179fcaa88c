"""The sidecar's settings: each declared once, with its meaning, unit and default; read from flags and environment."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import EVENTS_PER_REQUEST_MAX
from sidecar.contract.settings import (
    LOG_LEVELS,
    Address,
    Setting,
    count,
    read_address,
    read_level,
    read_mode,
    read_path,
    read_redis_url,
    read_settings,
    read_truth,
    seconds,
    size,
    whole_seconds,
)
from sidecar.contract.settings import add_flags as add_flags_of

_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a sidecar runs with. Made by `settings_from`."""

    redis_url: Annotated[
        str, Setting(None, read_redis_url, "URL", "Redis or Valkey; `REDIS_URL` when it is not set", "REDIS_URL")
    ]
    journal_dir: Annotated[
        Path,
        Setting(
            None,
            Path,
            "directory",
            "where the journal is kept: a disk that outlives the process, one directory a sidecar",
        ),
    ]
    http: Annotated[
        Address | None, Setting("127.0.0.1:8130", read_address, "HOST:PORT", "where HTTP is served; empty for nowhere")
    ]
    http_open: Annotated[
        bool,
        Setting(
            "false",
            read_truth,
            "true or false",
            "serve beyond this machine without `token_file`: whoever gets here can bill",
        ),
    ]
    token_file: Annotated[
        Path | None,
        Setting(
            "",
            read_path,
            "file",
            "bearer tokens that TCP requests need one of, one a line, at least 32 characters each",
        ),
    ]
    socket: Annotated[
        Path | None, Setting("", read_path, "path", "the Unix socket on which HTTP is served; empty for none")
    ]
    socket_mode: Annotated[
        int, Setting("0660", read_mode, "octal", "who may use the sockets; their directory is made 0750 if missing")
    ]
    stream_socket: Annotated[
        Path | None,
        Setting("", read_path, "path", "the Unix socket of the stream protocol, beside HTTP; empty for none"),
    ]
    ack_deadline_s: Annotated[
        float, Setting("2", seconds(0, 60), "seconds", "how long an answer waits for Redis before it says `journaled`")
    ]
    read_deadline_s: Annotated[
        float, Setting("5", seconds(0.1, 300), "seconds", "how long a request body may take to arrive")
    ]
    body_bytes_max: Annotated[int, Setting("8MiB", size(1024, 256 * _MIB), "bytes", "a request body's size")]
    waiting_bytes_max: Annotated[
        int,
        Setting(
            "64MiB", size(1024, 1 << 36), "bytes", "bodies that are read or worked on at once; above, requests get 429"
        ),
    ]
    request_events_max: Annotated[
        int, Setting("10000", count(1, EVENTS_PER_REQUEST_MAX), "events", "events in a request")
    ]
    connections_max: Annotated[int, Setting("1024", count(1, 1_000_000), "connections", "connections at once")]
    journal_bytes_max: Annotated[
        int,
        Setting("1GiB", size(_MIB, 1 << 44), "bytes", "what the journal may hold; full means 503, nothing is given up"),
    ]
    journal_segment_bytes: Annotated[
        int, Setting("64MiB", size(4096, 1 << 32), "bytes", "about the size of a journal file")
    ]
    journal_hold_s: Annotated[
        int,
        Setting("3600", whole_seconds(0, 30 * 86_400), "seconds", "how long segments are kept after Postgres has them"),
    ]
    dedupe_ttl_s: Annotated[
        int, Setting("86400", whole_seconds(60, 35 * 86_400), "seconds", "how long Redis remembers an event's identity")
    ]
    redis_memory_high: Annotated[
        int,
        Setting(
            "85",
            count(20, 100, "percent"),
            "percent",
            "of Redis's maxmemory; above, batches wait in the journal until the flusher has made room",
        ),
    ]
    watermark_interval_s: Annotated[
        float, Setting("5", seconds(0.1, 60), "seconds", "how often an idle sidecar says that nothing older is coming")
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
    if settings is not None:
        problems = _contradictions(settings)
        if not problems:
            return settings
    raise TaximeterError("config_invalid", "; ".join(problems))


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.http is None and settings.socket is None:
        problems.append("--http, --socket: expected an address or a socket, both are empty")
    if settings.stream_socket is not None and settings.stream_socket == settings.socket:
        problems.append("--stream-socket: expected another path than --socket")
    if settings.http is not None and not settings.http.is_loopback and not (settings.token_file or settings.http_open):
        problems.append(
            f"--http: {settings.http} can be reached from other machines; name a --token-file, or say --http-open true "
            "if a network policy or a proxy keeps strangers out"
        )
    if settings.journal_segment_bytes * 2 > settings.journal_bytes_max:
        problems.append("--journal-segment-bytes: expected at most half of --journal-bytes-max")
    if settings.body_bytes_max > settings.waiting_bytes_max:
        problems.append("--waiting-bytes-max: expected at least --body-bytes-max")
    return problems
