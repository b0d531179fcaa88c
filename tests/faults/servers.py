"""Valkey and PostgreSQL of a run: which server is the one that counts now, and those that stand by."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import psycopg
import redis

from flusher.embedded.binaries import find_postgres
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer
from tests.faults.processes import wait_until
from tests.faults.proxy import Proxy
from tests.faults.undertaker import Undertaker

QUICK: Final = {"repl-diskless-sync-delay": "0"}
WITH_FILE: Final = {"appendonly": "yes", "appendfsync": "everysec"}
WITHOUT_FILE: Final = {"appendonly": "no"}
POSTGRES: Final = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "deadlock_timeout": "100ms",
    "max_wal_size": "256MB",
}


class RedisBox:
    """The Redis of a run. The servers that it had before are gone, or stand by as replicas."""

    def __init__(self, directory: Path, undertaker: Undertaker, *, durable: bool) -> None:
        self._directory = directory
        self._undertaker = undertaker
        self._options = WITH_FILE if durable else WITHOUT_FILE
        self.durable = durable
        self._made = 0
        self.server = self._make({})

    def _make(self, options: Mapping[str, str]) -> ValkeyServer:
        self._made += 1
        server = ValkeyServer(self._directory / f"redis{self._made}", options={**QUICK, **self._options, **options})
        self._start(server)
        return server

    def _start(self, server: ValkeyServer) -> None:
        server.start()
        self._undertaker.watch(server.pid)

    @property
    def socket(self) -> str:
        """The Unix socket of the server that counts now."""
        return str(self.server.socket)

    def client(self) -> "redis.Redis":
        """Returns a client past all proxies; close it."""
        return redis.Redis.from_url(self.server.url, socket_timeout=10)

    def command(self, *arguments: Any) -> Any:
        """Runs one command past all proxies."""
        with contextlib.closing(self.client()) as client:
            return cast("Any", client).execute_command(*arguments)

    def signal(self, number: signal.Signals) -> None:
        """Sends the server a signal."""
        if self.server.pid is not None:
            os.kill(self.server.pid, number)

    def kill(self) -> None:
        """Kills the server and starts it on what it has on disk."""
        self.server.kill()
        self._start(self.server)

    def replace(self) -> None:
        """Puts a fresh empty server in its place."""
        old = self.server
        self.server = self._make({})
        old.kill()

    def truncate(self, rng: random.Random) -> int:
        """Kills the server, cuts some of the end off its append-only file, starts it; returns how many bytes went."""
        self.server.kill()
        files = sorted(self.server.data_dir.glob("appendonlydir/*.incr.aof"))
        size = files[-1].stat().st_size
        gone = rng.randint(0, min(size, 200_000))
        os.truncate(files[-1], size - gone)
        self._start(self.server)
        return gone

    def start_replica(self, link: Proxy) -> ValkeyServer:
        """Returns a replica that follows the server through a proxy."""
        link.upstream = self.socket
        replica = self._make({})
        with contextlib.closing(redis.Redis.from_url(replica.url)) as client:
            client.replicaof("127.0.0.1", link.port)
            wait_until(lambda: _is_in_step(client), 20, "the replica follows")
        return replica

    def promote(self, replica: ValkeyServer) -> None:
        """Kills the server and puts a replica in its place, however far behind it is."""
        self.server.kill()
        self.server = replica
        self.command("REPLICAOF", "NO", "ONE")

    def stop(self) -> None:
        """Stops it."""
        self.server.stop()


def _is_in_step(client: "redis.Redis") -> bool:
    info: Any = client.info("replication")
    return bool(info.get("master_link_status") == "up")


class PostgresBox:
    """The PostgreSQL of a run, durable, and the standby that may take its place."""

    def __init__(self, directory: Path, undertaker: Undertaker, options: Mapping[str, str]) -> None:
        self._directory = directory
        self._undertaker = undertaker
        self._options = {**POSTGRES, **options}
        self._made = 1
        self.server = PostgresServer(directory / "postgres1", options=self._options)
        self.start()

    def start(self) -> None:
        """Starts the server on what it has on disk."""
        self.server.start()
        self._undertaker.watch(self.server.pid)

    @property
    def socket(self) -> str:
        """The Unix socket of the server that counts now."""
        host = self.server.url.partition("host=")[2].partition("&")[0].replace("%2F", "/")
        return f"{host}/.s.PGSQL.5432"

    def connect(self) -> "psycopg.Connection[Any]":
        """Returns a connection past all proxies."""
        return psycopg.connect(self.server.url, autocommit=True, options="-c timezone=UTC")

    def backends(self) -> list[int]:
        """Returns the process ids of the server's children."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.server.pid:
                    found.append(int(stat.parent.name))
        return found

    def signal_all(self, number: signal.Signals) -> None:
        """Sends a signal to the server and all its children."""
        for pid in [*self.backends(), self.server.pid]:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Kills the server and starts it on what it has on disk."""
        self.server.kill()
        self.start()

    def start_standby(self, link: Proxy) -> PostgresServer:
        """Returns a standby that follows the server, asynchronously, through a proxy."""
        link.upstream = self.socket
        self._made += 1
        home = self._directory / f"postgres{self._made}"
        home.mkdir(mode=0o700)
        host = str(Path(self.socket).parent)
        backup = [str(find_postgres() / "pg_basebackup"), "-h", host, "-U", "postgres", "-D", str(home / "data")]
        subprocess.run([*backup, "-X", "stream", "-c", "fast"], check=True, capture_output=True, timeout=60)
        (home / "data" / "standby.signal").touch()
        source = f"host=127.0.0.1 port={link.port} user=postgres sslmode=disable gssencmode=disable"
        standby = PostgresServer(home, options={**self._options, "primary_conninfo": source, "hot_standby": "on"})
        standby.start()
        self._undertaker.watch(standby.pid)
        return standby

    def promote(self, standby: PostgresServer) -> None:
        """Kills the server and puts a standby in its place, whatever it lacks."""
        old = self.server
        old.kill()
        self.server = standby
        with self.connect() as connection:
            connection.execute("SELECT pg_promote(true, 30)")
        shutil.rmtree(old.data_dir, ignore_errors=True)

    def stop(self) -> None:
        """Stops it."""
        self.server.stop()
