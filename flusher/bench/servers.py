"""The servers of a benchmark, in a scratch directory: Valkey, PostgreSQL, a sidecar, and whatever a row adds.

Each row begins with an empty Valkey, an empty journal and a new sidecar, so that none pays for the one before it; the
ledger is kept, as a new database would take longer than most rows.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import redis

from flusher.bench.load import Target
from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.supervisor import Program, answers_ready
from flusher.embedded.system import free_address
from flusher.embedded.valkey import ValkeyServer
from flusher.summed import KeyedRows
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError

READY_S: Final = 30.0
POLL_S: Final = 0.02
# A rewrite of the append-only file forks and writes in the middle of some round: here it would hit one side by chance.
VALKEY: Final = {"auto-aof-rewrite-percentage": "0", "appendonly": "yes", "appendfsync": "everysec"}
POSTGRES: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


class Stand:
    """The servers. `fresh` makes them new for a row; `close` ends them and removes everything."""

    def __init__(self, parent: Path | None = None) -> None:
        """Use a new directory in `parent`, or where the system keeps temporary files."""
        self.directory = Path(tempfile.mkdtemp(prefix="taximeter-bench-", dir=parent))
        if os.geteuid() == 0:
            self.directory.chmod(0o711)  # PostgreSQL runs as another user then, who has to pass through
        self.postgres = PostgresServer(self.directory / "postgres", options=POSTGRES)
        self.valkey = self._valkey(append_only=True)
        self.journal = self.directory / "journal"
        self._http = free_address()
        self._sidecar_socket = self.directory / "sidecar.sock"
        self._stream_socket = self.directory / "stream.sock"
        self._sidecar = self._program("sidecar", sys.executable, "-m", "sidecar")

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            migrate(self.postgres.url)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything at once and remove it: nothing of it is worth a clean stop."""
        self._kill_redis_side()
        if self.postgres.pid is not None:
            with suppress(TaximeterError):
                self.postgres.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def tcp(self) -> Target:
        """The sidecar over TCP."""
        return Target(port=self._http.port)

    @property
    def unix(self) -> Target:
        """The sidecar over its Unix socket."""
        return Target(path=str(self._sidecar_socket))

    @property
    def stream(self) -> Target:
        """The sidecar's stream socket."""
        return Target(path=str(self._stream_socket))

    @property
    def valkey_socket(self) -> Target:
        """Valkey's Unix socket, the one that the sidecar uses."""
        return Target(path=str(self.valkey.socket))

    @property
    def ingest_pids(self) -> Mapping[str, int | None]:
        """The processes that an event goes through until it is applied."""
        return {"sidecar": self._sidecar.pid, "Valkey": self.valkey.pid}

    def fresh(self, *, append_only: bool = True) -> None:
        """Begin with an empty Redis, with or without its append-only file, an empty journal and a new sidecar."""
        self._kill_redis_side()
        for used in (self.valkey.data_dir, self.journal):
            shutil.rmtree(used, ignore_errors=True)
        self.journal.mkdir(mode=0o700)
        self.valkey = self._valkey(append_only=append_only)
        self.valkey.start()
        self._sidecar = self._program("sidecar", sys.executable, "-m", "sidecar")
        self._sidecar.start()
        deadline = time.monotonic() + READY_S
        with self.worker() as worker:
            while not answers_ready(self._http.host, self._http.port):
                if time.monotonic() > deadline:
                    raise TaximeterError("server_failed", f"the sidecar was not ready within {READY_S:g} s")
                worker.run_once()
                time.sleep(POLL_S)

    @contextmanager
    def worker(self, keyed_rows: KeyedRows = KeyedRows.SINGLE) -> Iterator[Worker]:
        """Give a flusher in this process, which works when it is told to."""
        with closing(Worker.connect(self.valkey.url, self.postgres.url, keyed_rows=keyed_rows)) as worker:
            yield worker

    @contextmanager
    def running(self, name: str, command: Sequence[str], port: int = 0) -> Iterator[int]:
        """Run a program beside the others until it is no longer needed; give its process id.

        With `port` once something listens there.
        """
        program = self._program(name, *command)
        program.start()
        try:
            if port:
                program.wait_ready(lambda: _listens(port), deadline_s=READY_S)
            yield program.pid or 0
        finally:
            program.kill()

    def redis_client(self) -> redis.Redis:
        """Return a client to look at Valkey with; the caller closes it."""
        return redis.Redis(unix_socket_path=str(self.valkey.socket), socket_timeout=READY_S)

    def environment(self) -> Mapping[str, str]:
        """Return the environment of our programs: these servers and no others, without a setting of the caller's."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
        return inherited | {
            "TAXIMETER_REDIS_URL": self.valkey.url,
            "TAXIMETER_DATABASE_URL": self.postgres.url,
            "TAXIMETER_JOURNAL_DIR": str(self.journal),
            "TAXIMETER_HTTP": self._http.text,
            "TAXIMETER_SOCKET": str(self._sidecar_socket),
            "TAXIMETER_STREAM_SOCKET": str(self._stream_socket),
            "TAXIMETER_HEALTH_HTTP": "",
            "TAXIMETER_LOG_LEVEL": "warning",
        }

    def _valkey(self, *, append_only: bool) -> ValkeyServer:
        options = VALKEY | {"appendonly": "yes" if append_only else "no"}
        return ValkeyServer(self.directory / "valkey", options=options)

    def _program(self, name: str, *command: str) -> Program:
        return Program(
            name,
            command,
            log=self.directory / f"{name}.log",
            environment=self.environment(),
            stop_deadline_s=READY_S,
        )

    def _kill_redis_side(self) -> None:
        for service in (self._sidecar, self.valkey):
            if service.pid is not None:
                service.kill()


def resident_bytes(pid: int | None) -> int:
    """Return the memory that a process has in RAM, 0 where that is not known."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def _listens(port: int) -> bool:
    with suppress(OSError):
        Target(port=port).connect().close()
        return True
    return False
