"""Real servers for the tests. A test that needs one fails where it is missing; nothing is ever skipped.

| fixture          | gives                                                                                   |
| ---------------- | --------------------------------------------------------------------------------------- |
| postgres_server  | a running PostgreSQL, one per worker, fast and unsafe (fsync off): never kill it        |
| database_url     | the address of a migrated database (one shard) of this test alone                       |
| make_database    | `make_database(shards=4)` or `make_database(migrated=False)`: further ones              |
| start_postgres   | `start_postgres(durable=True)`: a server of this test alone, to kill and restart        |
| valkey_server    | a running Valkey, one per worker, nothing on disk: never kill or configure it           |
| redis_url        | its address, emptied before the test                                                    |
| every_redis_url  | the same on every server there is: the test runs once on Valkey and, where it is on     |
|                  | PATH (in CI always), once on `redis-server`, which is Redis 7.0 on Debian 12            |
| start_valkey     | `start_valkey(appendfsync="always")`: a server of this test alone, with .url .kill()    |
|                  | .start() .restart() .data_dir; `program="redis-server"`, `data_dir=`, `tcp_port=` too   |
| server_dir       | a short, fresh directory that the servers' users can enter                              |
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from flusher.database import migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer

_ROOM_BYTES = 2 * 1024**3
_IN_MEMORY = {"appendonly": "no"}
_SMALL = {"shared_buffers": "64MB", "max_connections": "60", "wal_level": "minimal", "max_wal_senders": "0"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "every_redis_url" in metafunc.fixturenames:
        programs = ["valkey"]
        if shutil.which("redis-server") or os.environ.get("CI") == "true":
            programs.append("redis-server")
        metafunc.parametrize("every_redis_url", programs, indirect=True)


def make_server_dir(base: Path | None = None) -> Path:
    """Make a directory with a short name that every user can enter, in memory where there is room for it.

    In memory a new database takes a twentieth of the time. ``base`` is another place, for what has to be on disk.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    directory = Path(tempfile.mkdtemp(prefix="tm-", dir=base or (memory if roomy else None)))
    directory.chmod(0o711)  # as root PostgreSQL runs as nobody, who has to pass through
    return directory


@pytest.fixture(scope="session")
def _session_dir() -> Iterator[Path]:
    directory = make_server_dir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server_dir() -> Iterator[Path]:
    directory = make_server_dir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server(_session_dir: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(_session_dir / "postgres", durable=False, options=_SMALL)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _create_database(postgres_server: PostgresServer) -> Callable[[str], str]:
    """Makes a database from a template (by name) and returns its name."""

    def create(template: str) -> str:
        name = f"test_{uuid4().hex[:12]}"
        with psycopg.connect(postgres_server.url_of("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(  # a quarter of WAL_LOG's time
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    return create


@pytest.fixture(scope="session")
def _template(postgres_server: PostgresServer, _create_database: Callable[[str], str]) -> Callable[[int], str]:
    """Returns the name of a migrated database with so many shards, made once per worker."""
    templates: dict[int, str] = {}

    def template(shards: int) -> str:
        if shards not in templates:
            name = _create_database("template0")
            migrate(postgres_server.url_of(name), shards=shards)
            templates[shards] = name
        return templates[shards]

    return template


@pytest.fixture
def make_database(
    postgres_server: PostgresServer,
    _create_database: Callable[[str], str],
    _template: Callable[[int], str],
) -> Iterator[Callable[..., str]]:
    names: list[str] = []

    def make(*, migrated: bool = True, shards: int = 1) -> str:
        names.append(_create_database(_template(shards) if migrated else "template0"))
        return postgres_server.url_of(names[-1])

    yield make
    with psycopg.connect(postgres_server.url_of("postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(make_database: Callable[..., str]) -> str:
    return make_database()


@pytest.fixture
def start_postgres(server_dir: Path) -> Iterator[Callable[..., PostgresServer]]:
    servers: list[PostgresServer] = []

    def start(*, durable: bool = False, data_dir: Path | None = None, **options: str) -> PostgresServer:
        directory = data_dir or server_dir / f"postgres{len(servers)}"
        server = PostgresServer(directory, durable=durable, options=_SMALL | options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def _shared_valkey(_session_dir: Path) -> Iterator[Callable[[str | None], ValkeyServer]]:
    """Returns the worker's server of one program, started on first use."""
    servers: dict[str | None, ValkeyServer] = {}

    def shared(program: str | None) -> ValkeyServer:
        if program not in servers:
            server = ValkeyServer(_session_dir / f"valkey-{program}", options=_IN_MEMORY, program=program)
            server.start()
            servers[program] = server
        return servers[program]

    yield shared
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="session")
def valkey_server(_shared_valkey: Callable[[str | None], ValkeyServer]) -> ValkeyServer:
    return _shared_valkey(None)


def _emptied(server: ValkeyServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
    return server.url


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    return _emptied(valkey_server)


@pytest.fixture
def every_redis_url(request: pytest.FixtureRequest, _shared_valkey: Callable[[str | None], ValkeyServer]) -> str:
    return _emptied(_shared_valkey(None if request.param == "valkey" else request.param))


@pytest.fixture
def start_valkey(server_dir: Path) -> Iterator[Callable[..., ValkeyServer]]:
    servers: list[ValkeyServer] = []

    def start(
        *, program: str | None = None, data_dir: Path | None = None, tcp_port: int | None = None, **options: str
    ) -> ValkeyServer:
        directory = data_dir or server_dir / f"valkey{len(servers)}"
        settings = {name.replace("_", "-"): value for name, value in options.items()}
        server = ValkeyServer(directory, options=settings, tcp_port=tcp_port, program=program)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
