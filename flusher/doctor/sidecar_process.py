"""Checks of a sidecar: whether it accepts events, whether they leave it, and the disk that its journal is on."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flusher.doctor.finding import Finding, Level, finding
from flusher.doctor.redis_server import size

FREE_BYTES_MIN: Final = 1 << 30
_PART: Final = "sidecar"
_TIMEOUT_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 1 << 20
JOURNAL_TIGHT: Final = 0.75
JOURNAL_FULL: Final = 0.9
LAG_MAX: Final = 1_000  # batches that a sidecar which keeps up never has waiting
_MOUNTS: Final = Path("/proc/self/mounts")
_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_LAYERS: Final = frozenset({"overlay", "aufs"})
_REMOTE: Final = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "afs")


def check_sidecar(url: str) -> list[Finding]:
    """Return whether the sidecar at `url` accepts events, and what its metrics say of its journal and of Redis."""
    try:
        status, content = _get(url, "/readyz")
        found = [_ready(url, status, content)]
        status, content = _get(url, "/metrics")
    except (OSError, http.client.HTTPException) as error:
        remedy = "start it, or name its address with --http"
        return [finding(_PART, "ready", f"{url} does not answer: {error}", Level.FAIL, remedy)]
    if status == http.client.OK:
        return [*found, *judge_figures(_figures(content))]
    detail = f"its metrics can't be read: {_said(content)}"
    return [*found, finding(_PART, "figures", detail, Level.WARN, "read them with a token, on its /metrics")]


def _get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES_MAX)
    finally:
        connection.close()


def _ready(url: str, status: int, content: bytes) -> Finding:
    if status == http.client.OK:
        return finding(_PART, "ready", f"{url} accepts events")
    return finding(_PART, "ready", f"{url}: {_said(content)}", Level.FAIL, "see the message, and its log")


def _figures(content: bytes) -> dict[str, float]:
    """Return the metrics without labels of an answer in Prometheus's text form."""
    found: dict[str, float] = {}
    for line in content.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        with suppress(ValueError):
            found[name] = float(value)
    return found


def judge_figures(figures: Mapping[str, float]) -> Iterator[Finding]:
    """Yield what the metrics of a sidecar say. One that they lack is not looked at."""
    paused = figures.get("taximeter_sending_paused", 0) > 0
    connected = figures.get("taximeter_redis_shards_connected")
    lag = figures.get("taximeter_redis_lag_batches", 0)
    if connected is not None:
        yield _sending(paused=paused, connected=int(connected), lag=int(lag))
    held, room = figures.get("taximeter_journal_bytes"), figures.get("taximeter_journal_bytes_max")
    if held is not None and room:
        yield _journal(int(held), int(room), flows=bool(connected) and not paused)


def _sending(*, paused: bool, connected: int, lag: int) -> Finding:
    name = "sending"
    waits = f"{lag} batches of the journal wait to be sent"
    if paused:
        remedy = "Redis is nearly full: give it memory, or let a flusher reach PostgreSQL; until then the journal fills"
        return finding(_PART, name, f"paused; {waits}", Level.WARN, remedy)
    if not connected:
        remedy = "let it reach Redis, and run a flusher; until then the journal fills"
        return finding(_PART, name, f"no shard is connected; {waits}", Level.FAIL, remedy)
    remedy = "it catches up, or sends no faster than events come: see what slows Redis down"
    level = Level.OK if lag <= LAG_MAX else Level.WARN
    return finding(_PART, name, f"{connected} shards are connected; {waits}", level, remedy)


def _journal(held: int, room: int, *, flows: bool) -> Finding:
    """Say how full a journal is. What Postgres has is held for a while too, and gives way, where batches flow."""
    share = held / room
    detail = f"{size(held)} of {size(room)}"
    level = Level.OK if share < JOURNAL_TIGHT else Level.WARN if flows or share < JOURNAL_FULL else Level.FAIL
    remedy = "bring Redis and PostgreSQL back, or raise --journal-bytes-max: when it is full, events get 503"
    return finding(_PART, "journal", detail, level, remedy)


def check_journal(directory: Path) -> list[Finding]:
    """Return what is found of the disk with a journal on this machine."""
    if not directory.is_dir():
        remedy = "name the sidecar's TAXIMETER_JOURNAL_DIR with --journal-dir"
        return [finding("journal", "directory", f"{directory} is no directory", Level.FAIL, remedy)]
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape") if _MOUNTS.exists() else ""
        free = shutil.disk_usage(directory).free
        segments = sorted(path.stat().st_mtime for path in directory.glob("*.segment"))
    except OSError as error:
        return [finding("journal", "directory", f"{directory}: {error}", Level.WARN, "let this user read it")]
    found = [judge_file_system(file_system_of(directory.resolve(), mounts))]
    level = Level.OK if free >= FREE_BYTES_MIN else Level.WARN
    found.append(finding("journal", "space", f"{size(free)} free", level, "make room: a full disk means 503"))
    if segments:
        ago_s = max(0, int(time.time() - segments[0]))
        found.append(finding("journal", "held", f"{len(segments)} segments, the oldest written to {ago_s} s ago"))
    return found


def judge_file_system(kind: str) -> Finding:
    """Say whether a journal may be kept on a file system of this kind; empty where it is not known."""
    name = "file_system"
    if kind in _MEMORY:
        remedy = "keep it on a disk: what Postgres does not have yet is lost with the machine's memory"
        return finding("journal", name, f"{kind} is no disk", Level.FAIL, remedy)
    if kind in _LAYERS:
        remedy = "mount a volume: a container's own layer is removed with the container"
        return finding("journal", name, kind, Level.WARN, remedy)
    if kind.startswith(_REMOTE):
        remedy = "use a local disk, or be sure that its fsync and its locks hold"
        return finding("journal", name, f"{kind} is not a local disk", Level.WARN, remedy)
    return finding("journal", name, kind or "not known here")


def file_system_of(path: Path, mounts: str) -> str:
    """Return the kind of file system that an absolute path is on, by the text of /proc/self/mounts; else empty."""
    best, kind = "", ""
    for point, found in _points(mounts):
        inside = path.is_relative_to(point)
        if inside and len(point) >= len(best):  # of two on one place, the later covers the earlier
            best, kind = point, found
    return kind


def _points(mounts: str) -> Iterator[tuple[str, str]]:
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) >= 3:
            point = fields[1]
            for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(escape, character)
            yield point, fields[2]


def _said(content: bytes) -> str:
    try:
        problem = json.loads(content)
        return f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return "the answer is not from a sidecar"
