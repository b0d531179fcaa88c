"""What a benchmark ran on: a figure means nothing without it."""

import os
import platform
from contextlib import suppress
from pathlib import Path


def describe(journal: Path) -> dict[str, object]:
    """Return processor, cores, system, Python, load before the start, and the file system under the journal."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "journal on": file_system(journal),
        "load before": round(os.getloadavg()[0], 1),
    }


def file_system(path: Path) -> str:
    """Return the kind of file system that a path is on, "unknown" where the system does not say."""
    kinds: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, mount, kind, *_ = line.split()
            kinds[mount] = kind
    above = [str(directory) for directory in (path.absolute(), *path.absolute().parents) if str(directory) in kinds]
    return kinds[above[0]] if above else "unknown"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
