"""A whole Taximeter in one directory: Valkey, PostgreSQL, a flusher and a sidecar, started and stopped in order.

D/valkey/  D/postgres/  D/journal/   the data
D/logs/                              what flusher and sidecar print
D/endpoints.json                     how to reach it, while it runs
D/up.lock                            held while it runs, so that there is only one
"""

import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.process import DirectoryLock
from flusher.embedded.sockets import remove_socket_directory, socket_directory
from flusher.embedded.supervisor import LONGEST_DELAY_S, Program, Service, Supervisor, answers_ready
from flusher.embedded.valkey import ValkeyServer
from flusher.endpoints import Endpoints, remove_endpoints, write_endpoints
from sidecar.contract.codes import TaximeterError

_SOCKET_NAME = "taximeter.sock"
_STREAM_NAME = "taximeter.stream"  # the longest of the two
_READY_DEADLINE_S = 30.0
_LOCK_DEADLINE_S = 1.0
_COMMAND_DEADLINE_S = 120.0
_NOT_OURS = (
    "REDIS_URL",
    "DATABASE_URL",
    "STRIPE_",
    "TAXIMETER_REDIS_URL",
    "TAXIMETER_DATABASE_URL",
    "TAXIMETER_STRIPE_",
)


class Address(NamedTuple):
    """A host name or address and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``. Raises TaximeterError (usage_invalid) for anything else."""
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise TaximeterError(
                "usage_invalid", f"--http: expected HOST:PORT with a port from 1 to 65535, got {text!r}"
            )
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    @property
    def text(self) -> str:
        """``HOST:PORT``, with brackets round an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable_host(self) -> str:
        """The host to connect to: loopback where the server listens on every address."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return self.host
        if not address.is_unspecified:
            return self.host
        return "127.0.0.1" if address.version == 4 else "::1"

    def require_free(self) -> None:
        """Raise TaximeterError (config_invalid) unless a server could listen here now."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise TaximeterError(
                    "config_invalid", f"can't listen on {self.text}: {error.strerror}; choose another with --http"
                ) from error


def free_address() -> Address:
    """Return an address on loopback whose port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", int(probe.getsockname()[1]))


class System:
    """Everything that `taximeter up` runs. It belongs to the main thread.

    ``data_dir`` keeps the data, ``http`` is where the sidecar listens, ``socket_path`` its Unix socket (default in
    ``data_dir``), ``catalog`` a file to apply at each start, ``tell`` takes lines for the person who watches.
    What ends again and again is started again after ``restart_delay_max_s`` at most.
    Addresses and Stripe keys in our own environment are not handed on: this system can't touch anything else.
    """

    def __init__(
        self,
        data_dir: Path,
        http: Address,
        *,
        socket_path: Path | None = None,
        catalog: Path | None = None,
        restart_delay_max_s: float = LONGEST_DELAY_S,
        tell: Callable[[str], None],
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.http = http
        self._socket_path = socket_path.absolute() if socket_path else None
        self._catalog = catalog
        self._restart_delay_max_s = restart_delay_max_s
        self._tell = tell
        self._lock = DirectoryLock(self.data_dir / "up.lock")
        self._valkey = ValkeyServer(self.data_dir / "valkey")
        self._postgres = PostgresServer(self.data_dir / "postgres")
        self._programs: dict[str, Program] = {}
        self._supervisor: Supervisor | None = None

    def start(self) -> Endpoints:
        """Start everything and return how to reach it once the sidecar accepts events.

        Raises TaximeterError when a part does not come up, when the address is taken, or when another `up` works
        in the directory; whatever was started is stopped again.
        """
        # As root PostgreSQL runs as another user, who has to pass through, but not to look.
        self.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            self.http.require_free()
            self._start_parts()
        except TaximeterError:
            for service in reversed(self._services()):
                with contextlib.suppress(TaximeterError):
                    service.stop()
            self._clean_up()
            raise
        except BaseException:
            self.kill()
            raise
        self._supervisor = Supervisor(
            self._services(),
            tell=self._tell,
            changed=self._write_endpoints,
            longest_delay_s=self._restart_delay_max_s,
        )
        return self._write_endpoints()

    def check(self) -> None:
        """Start what has ended since. Call it a few times a second while the system should run."""
        if self._supervisor is not None:
            self._supervisor.check()

    def stop(self) -> None:
        """Stop everything in order, and first bring what Redis holds into PostgreSQL.

        A part that does not stop in time is killed and reported; nothing is lost by that, the next start goes on.
        Raises the first such TaximeterError when everything is down.
        """
        remove_endpoints(self.data_dir)
        sidecar, flusher = self._programs["sidecar"], self._programs["flusher"]
        failures: list[TaximeterError] = []
        for step in (sidecar.stop, self._last_flush, flusher.stop, self._postgres.stop, self._valkey.stop):
            try:
                step()
            except TaximeterError as error:
                failures.append(error)
        self._clean_up()
        if failures:
            raise failures[0]

    def kill(self) -> None:
        """End everything at once; what was accepted is safe on disk."""
        for service in reversed(self._services()):
            if service.pid is not None:
                service.kill()
        remove_endpoints(self.data_dir)
        self._clean_up()

    def run_command(self, *arguments: str) -> str:
        """Run ``taximeter ARGUMENTS`` on this system and return what it printed on standard output.

        Raises TaximeterError (server_failed) with what it said when it fails or takes over two minutes.
        """
        command = [sys.executable, "-m", "flusher", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TaximeterError(
                "server_failed", f"taximeter {' '.join(arguments)} took over {_COMMAND_DEADLINE_S:g} s"
            ) from error
        if done.returncode != 0:
            said = done.stderr.rpartition("error: ")[2].strip() or f"ended with status {done.returncode}"
            raise TaximeterError("server_failed", f"taximeter {' '.join(arguments)}: {said}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return the environment in which a program works on this system and on nothing else."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)}
        return inherited | {
            "TAXIMETER_REDIS_URL": self._valkey.url,
            "TAXIMETER_DATABASE_URL": self._postgres.url,
            "TAXIMETER_JOURNAL_DIR": str(self.data_dir / "journal"),
            "TAXIMETER_HTTP": self.http.text,
            "TAXIMETER_SOCKET": str(self.socket),
            "TAXIMETER_STREAM_SOCKET": str(self.stream),
            "TAXIMETER_HEALTH_HTTP": "",  # nobody probes this flusher, and several systems may run on a machine
        }

    @property
    def pids(self) -> dict[str, int | None]:
        """The process of each part, None while it is down; known once the system was started."""
        return {
            "sidecar": self._programs["sidecar"].pid,
            "flusher": self._programs["flusher"].pid,
            "redis": self._valkey.pid,
            "postgres": self._postgres.pid,
        }

    @property
    def socket(self) -> Path:
        """The sidecar's Unix socket; known once the system was started."""
        return self._socket_path or socket_directory(self.data_dir, _STREAM_NAME) / _SOCKET_NAME

    @property
    def stream(self) -> Path:
        """The socket of its stream protocol; known once the system was started."""
        return socket_directory(self.data_dir, _STREAM_NAME) / _STREAM_NAME

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(deadline_s=_LOCK_DEADLINE_S)
        except TaximeterError as error:
            raise TaximeterError(
                "server_failed", f"a `taximeter up` is already running on {self.data_dir}; stop it, or use --data-dir"
            ) from error

    def _start_parts(self) -> None:
        self._tell("starting Valkey and PostgreSQL")
        self._valkey.start()
        self._postgres.start()
        migrate(self._postgres.url)
        if self._catalog is not None:
            self.run_command("apply", str(self._catalog))
        self._tell("starting flusher and sidecar")
        logs = self.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        (self.data_dir / "journal").mkdir(mode=0o700, exist_ok=True)
        for name, arguments in {"flusher": ("flusher", "flusher"), "sidecar": ("sidecar",)}.items():
            program = Program(
                name,
                [sys.executable, "-m", *arguments],
                log=logs / f"{name}.log",
                environment=self.environment(),
            )
            self._programs[name] = program
            program.start()
        self._programs["sidecar"].wait_ready(
            lambda: answers_ready(self.http.reachable_host, self.http.port), deadline_s=_READY_DEADLINE_S
        )

    def _services(self) -> list[Service]:
        return [self._valkey, self._postgres, *self._programs.values()]

    def _write_endpoints(self) -> Endpoints:
        pids = {**self.pids, "up": os.getpid()}
        endpoints = Endpoints(
            http=f"http://{self.http._replace(host=self.http.reachable_host).text}",
            socket=str(self.socket),
            stream=str(self.stream),
            redis=self._valkey.url,
            database=self._postgres.url,
            pids={name: pid for name, pid in pids.items() if pid is not None},
        )
        write_endpoints(self.data_dir, endpoints)
        return endpoints

    def _last_flush(self) -> None:
        self._tell("bringing the last events into PostgreSQL")
        self.run_command("flush")

    def _clean_up(self) -> None:
        for left in (self.stream,) if self._socket_path else (self.socket, self.stream):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        remove_socket_directory(self.stream.parent, self.data_dir)
        self._lock.release()
