"""A PostgreSQL that is down, ends sessions at COMMIT, refuses for every reason there is, or fails over and forgets."""

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.faults.processes import Program
from tests.faults.provoke import provoke
from tests.faults.world import PATIENCE_S, World

DISK_FULL: Final = """
CREATE FUNCTION taximeter.disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE CONSTRAINT TRIGGER disk_is_full AFTER UPDATE ON taximeter.shards
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION taximeter.disk_is_full();
"""


def stay_down(world: World) -> str:
    """Stopped in order, and down for a while."""
    world.postgres.stop()
    world.rest(2.0)
    world.postgres.start()
    world.rest(0.5)
    return "for 2 s"


def terminate_at_commit(world: World) -> str:
    """The session is ended while the flusher is about to COMMIT."""
    program = world.flushers[world.rng.choice(sorted(world.flushers))]
    _stop_at(world, program, world.rng.choice(["epoch committed", "generation committed", "registration committed"]))
    with world.postgres.connect() as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'taximeter' AND state = 'idle in transaction'"
        ).fetchall()
    program.signal(signal.SIGCONT)
    world.rest(0.3)
    return f"{program.name}, {len(rows)} sessions"


def _stop_at(world: World, program: Program, point: str) -> None:
    program.arm(point, "before", "stop")
    provoke(world, point, program)
    world.wait(lambda: program.has_fired and program.is_stopped, PATIENCE_S, f"{program.name} comes to {point}")


def deadlock(world: World) -> str:
    """Somebody else locks rows in the other order; the flusher is the victim."""
    program = world.flushers[world.rng.choice(sorted(world.flushers))]
    _stop_at(world, program, "usage added")
    with world.postgres.connect() as connection:
        before = _said(world, "deadlock detected")
        connection.execute("SET deadlock_timeout = '20s'")
        connection.execute("SET lock_timeout = '1s'")
        with contextlib.suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            connection.execute("UPDATE taximeter.positions SET sequence = sequence")
            waiting = threading.Thread(target=_lock_shards, args=(connection,))
            waiting.start()
            world.rest(0.1)
            program.signal(signal.SIGCONT)
            waiting.join()
        world.rest(0.2)
    return f"{_said(world, 'deadlock detected') - before} flushers were its victims"


def _lock_shards(connection: "psycopg.Connection[Any]") -> None:
    with contextlib.suppress(psycopg.errors.LockNotAvailable):
        connection.execute("UPDATE taximeter.shards SET token = token")


def _said(world: World, what: str) -> int:
    """Returns how often flushers said something in their logs."""
    return sum(program.log_text().count(what) for program in world.flushers.values())


def fail_to_serialize(world: World) -> str:
    """Every transaction is SERIALIZABLE for a while, beside others that touch the same rows: SQLSTATE 40001."""
    before = _said(world, "could not serialize")
    with world.postgres.connect() as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_isolation = 'serializable'")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SET default_transaction_isolation = 'read committed'")  # it is the others that fail
        try:
            connection.execute("SET lock_timeout = '100ms'")
            for _ in range(20):
                for table in ("shards SET token = token", "positions SET sequence = sequence"):
                    with contextlib.suppress(psycopg.errors.LockNotAvailable):
                        connection.execute(f"UPDATE taximeter.{table}".encode())
                world.rest(0.05)
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_isolation")
            connection.execute("SELECT pg_reload_conf()")
    world.rest(0.2)
    return f"{_said(world, 'could not serialize') - before} times"


def fill_disk_at_commit(world: World) -> str:
    """COMMIT fails with 53100. A deferred trigger raises it: what the flusher sees of a full disk, without one."""
    with world.postgres.connect() as connection:
        connection.execute(DISK_FULL)
        world.rest(1.0)
        connection.execute("DROP TRIGGER disk_is_full ON taximeter.shards")
        connection.execute("DROP FUNCTION taximeter.disk_is_full")
    world.rest(0.2)
    return ""


def fill_disk(world: World) -> str:
    """The flushers' sessions can write no file: the operating system refuses, by a limit on the size of files.

    A table that grows gets SQLSTATE 53100, as on a full disk; where the write-ahead log is written first, the server
    panics, as on a full disk, and recovers by itself.
    """
    with world.postgres.connect() as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'taximeter'").fetchall()
    limited = [pid for (pid,) in rows if _limit_files(pid, "1")]
    world.rest(1.5)
    for pid in limited:
        _limit_files(pid, "unlimited")
    world.rest(0.5)
    return f"{len(limited)} sessions"


def _limit_files(pid: int, size: str) -> bool:
    """Limits the size of the files that a session writes; says whether it could. Only its own user may, root or not."""
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        who = Path(f"/proc/{pid}").stat()
        user, group = (None, None) if who.st_uid == os.geteuid() else (who.st_uid, who.st_gid)
        command = ["prlimit", f"--pid={pid}", f"--fsize={size}:"]
        done = subprocess.run(command, check=False, timeout=10, user=user, group=group, capture_output=True)
        return done.returncode == 0
    return False


def fail_over(world: World) -> str:
    """Killed, and an asynchronous standby takes over that has not got the latest commits."""
    link = world.proxy("standby")
    link.heal()
    standby = world.postgres.start_standby(link)
    world.rest(0.5)
    link.refusing = True
    link.cut()
    before = world.counted()
    world.wait(lambda: world.counted() > before, PATIENCE_S, "commits that the standby lacks")
    before = world.counted()
    world.postgres.promote(standby)
    after = world.counted()
    world.point_proxies()
    world.rest(0.5)
    return f"{before} events or more were counted, the standby has {after}"
