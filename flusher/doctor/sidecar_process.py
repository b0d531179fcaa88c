"""Checks of a sidecar: whether it accepts events, and the disk that its journal is on."""

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flusher.doctor.finding import Finding, Level, finding
from flusher.doctor.redis_server import size

FREE_BYTES_MIN: Final = 1 << 30
_PART: Final = "sidecar"
_TIMEOUT_S: Final = 5.0
_MOUNTS: Final = Path("/proc/self/mounts")
_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_LAYERS: Final = frozenset({"overlay", "aufs"})
_REMOTE: Final = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "afs")


def check_sidecar(url: str) -> list[Finding]:
    """Return whether the sidecar at `url` accepts events."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        content = response.read(65_536)
    except (OSError, http.client.HTTPException) as error:
        remedy = "start it, or name its address with --http"
        return [finding(_PART, "ready", f"{url} does not answer: {error}", Level.FAIL, remedy)]
    finally:
        connection.close()
    if response.status == http.client.OK:
        return [finding(_PART, "ready", f"{url} accepts events")]
    return [finding(_PART, "ready", f"{url}: {_said(content)}", Level.FAIL, "see the message, and its log")]


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
