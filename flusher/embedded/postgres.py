"""A PostgreSQL server of our own: made once by initdb, reachable only through a Unix socket in a 0700 directory.

PostgreSQL refuses to run as root. Where we are root it runs as ``nobody``, who gets the data directory and
nothing else; where ``nobody`` can't reach the program or the directory (a checkout under a home with mode 0700),
it runs in a user namespace in which our files are its own. The mode of no other directory is ever changed.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from flusher.embedded.binaries import find_postgres, major_version
from flusher.embedded.process import OURSELVES, Child, RunAs, log_tail
from flusher.embedded.server import LOCK_DEADLINE_S, EmbeddedServer
from flusher.embedded.sockets import socket_directory
from sidecar.contract.codes import TaximeterError

_PORT = 5432
_SOCKET_NAME = f".s.PGSQL.{_PORT}"
_INITDB_DEADLINE_S = 60.0
_PROBE_DEADLINE_S = 10.0
_FASTER_THAN_SAFE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer(EmbeddedServer):
    """A PostgreSQL server that keeps everything in ``data_dir`` (mode 0700) and opens no TCP port.

    ``durable=False`` gives up safety for speed, for tests that never kill it; ``options`` are settings of the
    server by their own names. Nothing runs before `start`.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, options: Mapping[str, str] | None = None) -> None:
        super().__init__("PostgreSQL", data_dir)
        self._cluster = self.data_dir / "data"
        self._options = {**({} if durable else _FASTER_THAN_SAFE), **(options or {})}

    @property
    def url(self) -> str:
        """The address of its database ``taximeter``, as libpq takes it."""
        return self.url_of("taximeter")

    def url_of(self, database: str) -> str:
        """Return the address of another database of this server."""
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self._sockets))}&port={_PORT}"

    def start(self, *, deadline_s: float = 60.0) -> None:
        """Start it, making the database on first use. Raises as `EmbeddedServer.start` says, and server_failed when
        the data were made by another major version, or when we are root and nobody else can run the program."""
        binaries = find_postgres()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        run_as = _identity(binaries, self.data_dir)
        lock = self._lock.acquire(deadline_s=LOCK_DEADLINE_S)
        try:
            self._prepare(binaries, run_as, lock)
            self._child = Child(
                self.name,
                [str(binaries / "postgres"), "-D", str(self._cluster), *self._settings()],
                log=self.log,
                stop_signal=signal.SIGINT,  # its fast shutdown: ends sessions, writes everything
                death_signal=signal.SIGINT,
                environment=_environment(),
                run_as=run_as,
                directory=self.data_dir,
                keep_open=[lock],
            )
        finally:
            self._lock.release()
        self._child.wait_ready(self._accepts, deadline_s=deadline_s)

    def _prepare(self, binaries: Path, run_as: RunAs, lock: int) -> None:
        """Bring the directory into the state in which the server can start, with the lock held."""
        _give(self.data_dir, run_as)
        self._sockets = socket_directory(self.data_dir, _SOCKET_NAME + ".lock", owner=run_as.user)
        if not self._cluster.exists():
            self._create(binaries, run_as, lock)
        made_by = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        version = major_version(binaries / "postgres")
        if made_by != str(version):
            raise TaximeterError(
                "server_failed",
                f"{self._cluster} was made by PostgreSQL {made_by} and the program is {version}; install "
                f"that version, or move the data over with pg_dump and pg_restore",
            )
        # With the lock held no server is left here, so a pid file is from one that was killed.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        (self._sockets / f"{_SOCKET_NAME}.lock").unlink(missing_ok=True)

    def _create(self, binaries: Path, run_as: RunAs, lock: int) -> None:
        """Make the cluster and its database beside its place, then rename it: a crash leaves nothing half made."""
        fresh = self.data_dir / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if major_version(binaries / "postgres") >= 17
            else ["--no-locale"]
        )
        initdb = [str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "-A", "trust", "--encoding=UTF8"]
        self._run([*initdb, *locale, "--no-instructions"], run_as, lock)
        script = files("flusher.embedded").joinpath("create_database.sql").read_bytes()
        self._run([str(binaries / "postgres"), "--single", "-D", str(fresh), "postgres"], run_as, lock, script)
        fresh.rename(self._cluster)

    def _run(self, command: list[str], run_as: RunAs, lock: int, script: bytes = b"") -> None:
        try:
            with self.log.open("ab") as output:
                subprocess.run(
                    [*run_as.prefix, *command],
                    input=script,
                    stdout=output,
                    stderr=output,
                    check=True,
                    timeout=_INITDB_DEADLINE_S,
                    env=_environment(),
                    cwd=self.data_dir,
                    pass_fds=(lock,),
                    user=run_as.user,
                    group=run_as.group,
                    extra_groups=run_as.extra_groups,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise TaximeterError(
                "server_failed", f"PostgreSQL's data directory could not be made: {error}{log_tail(self.log)}"
            ) from error

    def _settings(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "dynamic_shared_memory_type": "mmap",  # in the data directory: a kill leaves nothing elsewhere
            **self._options,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _accepts(self) -> bool:
        """Read the status that the server keeps in the eighth line of its pid file."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"


def _environment() -> dict[str, str]:
    """Only what the server needs: a PGDATA or PGPORT of ours must not lead it elsewhere."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _identity(binaries: Path, data_dir: Path) -> RunAs:
    """Choose who PostgreSQL runs as, by trying. Raises TaximeterError (server_failed) when root has no way."""
    if os.geteuid() != 0:
        return OURSELVES
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise TaximeterError(
            "server_failed", "PostgreSQL does not run as root and there is no user nobody; run as an ordinary user"
        ) from None
    dropped = RunAs(user=nobody.pw_uid, group=nobody.pw_gid)
    if _reaches(dropped, binaries, data_dir.parent):
        return dropped
    if unshare := shutil.which("unshare"):
        flags = ("--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
        namespaced = RunAs(prefix=(unshare, *flags))
        if _reaches(namespaced, binaries, data_dir.parent):
            return namespaced
    raise TaximeterError(
        "server_failed",
        f"PostgreSQL does not run as root, and the user nobody can't enter {binaries} or {data_dir.parent}; "
        f"run as an ordinary user, or put both below directories that others may enter (chmod o+x)",
    )


def _reaches(run_as: RunAs, binaries: Path, parent: Path) -> bool:
    """Try whether ``run_as`` can run the server's program and enter the directory above the data."""
    script = 'test -x "$1" && exec "$2" --version'
    try:
        subprocess.run(
            [*run_as.prefix, "sh", "-c", script, "sh", str(parent), str(binaries / "postgres")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_PROBE_DEADLINE_S,
            cwd="/",
            user=run_as.user,
            group=run_as.group,
            extra_groups=run_as.extra_groups,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _give(directory: Path, run_as: RunAs) -> None:
    """Make the server's identity the owner of its directory and of what is in it, where it is not already."""
    if os.geteuid() != 0:
        return
    owner = 0 if run_as.user is None else run_as.user
    group = 0 if run_as.group is None else run_as.group
    if directory.stat().st_uid == owner:
        return
    for folder, _, names in os.walk(directory, topdown=False):  # the directory itself last: it says all is done
        for name in names:
            os.chown(Path(folder) / name, owner, group, follow_symlinks=False)
        os.chown(folder, owner, group)
