"""`endpoints.json`: where a running `taximeter up` says how to reach its parts, for people and commands."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sidecar.contract.codes import TaximeterError

FILE_NAME: Final = "endpoints.json"
DEFAULT_DATA_DIR: Final = Path(".taximeter")


@dataclass(frozen=True)
class Endpoints:
    """Addresses of a running system: ``http``, ``redis`` and ``database`` are URLs, ``socket`` and ``stream`` are paths
    of the sidecar's Unix sockets; ``pids`` are the process ids of sidecar, flusher, redis, postgres, and of `up`."""

    http: str
    socket: str
    redis: str
    database: str
    pids: dict[str, int]
    stream: str = ""


def write_endpoints(data_dir: Path, endpoints: Endpoints) -> None:
    """Write the file into ``data_dir`` with mode 0600, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=data_dir, prefix=f".{FILE_NAME}.")  # mkstemp makes it 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(endpoints), file, indent=2)
        file.write("\n")
    Path(name).replace(data_dir / FILE_NAME)


def remove_endpoints(data_dir: Path) -> None:
    """Remove the file, if it is there."""
    (data_dir / FILE_NAME).unlink(missing_ok=True)


def read_endpoints(data_dir: Path) -> Endpoints | None:
    """Return what the file in ``data_dir`` says, or None where there is none or its `up` is no longer running.

    Raises TaximeterError (file_invalid) when it is not the file that `up` writes.
    """
    path = data_dir / FILE_NAME
    try:
        endpoints = Endpoints(**json.loads(path.read_text(encoding="utf-8")))
        up = int(endpoints.pids["up"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TaximeterError("file_invalid", f"{path} is not what `taximeter up` writes: {error}") from error
    return endpoints if _is_running(up) else None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True
