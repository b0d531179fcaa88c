"""The program `taximeter flusher`, as a process on real servers."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import redis

from flusher.database import connect, migrate
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.process import wait_until
from flusher.embedded.system import free_address
from flusher.embedded.valkey import ValkeyServer
from flusher.partitions import ensure_partitions
from sidecar.contract import keys

DEADLINE_S = 30.0


class Program:
    """A running `taximeter flusher`, with its log."""

    def __init__(self, log: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log = log
        self.address = free_address().text
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flusher", "flusher", "--health-http", self.address, *arguments],
                env=inherited | {"TAXIMETER_FLUSH_INTERVAL_S": "0.05"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def get(self, path: str) -> tuple[int, str]:
        """Returns status and body; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def becomes(self, condition: Callable[[], bool]) -> bool:
        """Waits until the condition holds, while the program runs."""
        held = wait_until(lambda: self.process.poll() is not None or condition(), deadline_s=DEADLINE_S)
        return held and self.process.poll() is None

    def metric(self, name: str) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), -1.0)

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def said(self, part: str) -> bool:
        return any(part in line["message"] for line in self.lines())

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


StartProgram = Callable[..., Program]


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    programs: list[Program] = []

    def start(redis_url: str, database_url: str, *arguments: str, **environment: str) -> Program:
        addresses = {"TAXIMETER_REDIS_URL": redis_url, "TAXIMETER_DATABASE_URL": database_url}
        log = tmp_path / f"flusher{len(programs)}.log"
        programs.append(Program(log, addresses | environment, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait(DEADLINE_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_becomes_ready_and_ends_in_order_when_asked(
    number: signal.Signals, start_program: StartProgram, redis_url: str, database_url: str
) -> None:
    # given a flusher whose servers are there
    program = start_program(redis_url, database_url)
    # when its first cycle has ended
    assert program.becomes(program.is_ready), program.log.read_text()
    # then it is alive, says so, and has opened the generation
    assert program.get("/livez") == (200, '{"status": "ok"}\n')
    assert program.becomes(lambda: program.metric("taximeter_flusher_cycle_seconds_count") >= 2)
    assert program.metric("taximeter_flusher_generations_total") == 1
    assert program.metric("taximeter_flusher_last_cycle_timestamp_seconds") > 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.hexists(keys.state(0), "generation")
    # and a signal ends it with a last cycle
    assert program.end(number) == 0
    assert program.said("stopped after a last cycle")
    assert {line["level"] for line in program.lines()} <= {"info", "warning"}


def test_it_serves_nothing_but_its_health(start_program: StartProgram, redis_url: str, database_url: str) -> None:
    program = start_program(redis_url, database_url)
    assert program.becomes(lambda: program.get("/livez")[0] == 200)
    status, body = program.get("/etc/passwd")
    assert status == 404
    assert json.loads(body)["code"] == "not_found"


def test_it_waits_for_its_servers_and_for_the_schema(
    start_program: StartProgram,
    start_valkey: Callable[..., ValkeyServer],
    start_postgres: Callable[..., PostgresServer],
) -> None:
    # given that neither server runs
    valkey, postgres = start_valkey(), start_postgres()
    valkey.stop()
    postgres.stop()
    program = start_program(valkey.url, postgres.url)
    # then it is alive, not ready, and says what it waits for
    assert program.becomes(lambda: program.said("database_unavailable"))
    assert program.get("/livez")[0] == 200
    status, body = program.get("/readyz")
    assert (status, json.loads(body)["code"]) == (503, "database_unavailable")
    # when they come up one after the other
    postgres.start()
    assert program.becomes(lambda: program.said("run `taximeter migrate`"))
    migrate(postgres.url)
    assert program.becomes(lambda: program.said("redis_unavailable"))
    valkey.start()
    # then it goes on by itself
    assert program.becomes(program.is_ready), program.log.read_text()
    assert program.end() == 0


def test_it_ends_while_it_waits(start_program: StartProgram, server_dir: Path) -> None:
    nowhere = server_dir / "nobody"
    program = start_program(f"unix://{nowhere}", f"postgresql://nobody@/nothing?host={nowhere}")
    assert program.becomes(lambda: program.said("trying again"))
    assert program.end() == 0


def test_it_survives_a_killed_postgres(
    start_program: StartProgram, redis_url: str, start_postgres: Callable[..., PostgresServer]
) -> None:
    # given a flusher that is ready
    postgres = start_postgres(durable=True)
    migrate(postgres.url)
    program = start_program(redis_url, postgres.url)
    assert program.becomes(program.is_ready), program.log.read_text()
    # when PostgreSQL is killed
    postgres.kill()
    # then it says so and keeps running
    assert program.becomes(lambda: not program.is_ready())
    assert json.loads(program.get("/readyz")[1])["code"] == "database_unavailable"
    assert program.becomes(lambda: program.metric('taximeter_flusher_errors_total{code="database_unavailable"}') > 0)
    # and when it is back the flusher goes on with it
    postgres.start()
    cycles = program.metric("taximeter_flusher_cycle_seconds_count")
    assert program.becomes(program.is_ready), program.log.read_text()
    assert program.becomes(lambda: program.metric("taximeter_flusher_cycle_seconds_count") > cycles)
    assert program.end() == 0


def test_it_survives_a_killed_redis(
    start_program: StartProgram, database_url: str, start_valkey: Callable[..., ValkeyServer]
) -> None:
    valkey = start_valkey(appendonly="no")
    program = start_program(valkey.url, database_url)
    assert program.becomes(program.is_ready), program.log.read_text()
    # when Redis is killed and comes back with nothing
    valkey.kill()
    assert program.becomes(lambda: not program.is_ready())
    valkey.start()
    # then a new generation is opened
    assert program.becomes(program.is_ready), program.log.read_text()
    assert program.becomes(lambda: program.metric("taximeter_flusher_generations_total") == 2)
    assert program.end() == 0


def test_a_redis_that_may_evict_is_refused_at_the_start(
    start_program: StartProgram, database_url: str, start_valkey: Callable[..., ValkeyServer]
) -> None:
    valkey = start_valkey(maxmemory_policy="allkeys-lru")
    program = start_program(valkey.url, database_url)
    assert program.process.wait(DEADLINE_S) == 1
    assert "error: redis_unsuitable: maxmemory-policy: expected noeviction" in program.log.read_text()


def test_an_address_in_use_is_refused_at_the_start(
    start_program: StartProgram, redis_url: str, database_url: str
) -> None:
    first = start_program(redis_url, database_url)
    assert first.becomes(first.is_ready), first.log.read_text()
    second = start_program(redis_url, database_url, "--health-http", first.address)
    assert second.process.wait(DEADLINE_S) == 1
    assert f"error: config_invalid: --health-http: can't listen on {first.address}" in second.log.read_text()


def test_passwords_may_come_from_files(
    start_program: StartProgram, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "database_url"
    file.write_text(f"{database_url}\n", encoding="utf-8")
    program = start_program(redis_url, "", TAXIMETER_DATABASE_URL_FILE=str(file))
    assert program.becomes(program.is_ready), program.log.read_text()
    with psycopg.connect(database_url) as connection:
        held = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'taximeter'")
        assert held.fetchone() != (0,)


def test_what_a_killed_one_was_dropping_goes_on_to_go(
    start_program: StartProgram, redis_url: str, database_url: str
) -> None:
    # given old claims, and a month of events that sidecars have refused for long, with its usage
    ensure_partitions(database_url, ["202507"])
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO claims SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), '\\x0000000000000000', NULL,"
            " '2025-01-01' FROM generate_series(1, 30000) AS n"
        )
        connection.execute(
            "INSERT INTO events SELECT '2025-07-02Z'::timestamptz + n * interval '1 minute',"
            " decode(lpad(to_hex(n), 32, '0'), 'hex'), '\\x0000000000000000', 0, 0, 1, now(), 'u', '', NULL, 'x', 2"
            " FROM generate_series(0, 299) AS n"
        )
        connection.execute(
            "INSERT INTO usage SELECT 0, 'u', 'x', '{}', date_bin('15 minutes', event_time, 'epoch'), sum(units),"
            " count(*) FROM events GROUP BY 5"
        )
        connection.execute(
            "UPDATE ledger SET event_floor_next = '2025-07-31 23:59:59.999999Z',"
            " event_floor_next_at = now() - interval '2 days'"
        )

    def read(text: LiteralString) -> object:
        with connect(database_url) as connection:
            return connection.execute(text).fetchall()[0][0]

    # when a flusher is killed while it drops them, and another one works
    first = start_program(redis_url, database_url, TAXIMETER_EVENTS_KEEP_DAYS="100")
    assert first.becomes(lambda: read("SELECT count(*) FROM claims") != 30000), first.log.read_text()
    first.end(signal.SIGKILL)
    second = start_program(redis_url, database_url, TAXIMETER_EVENTS_KEEP_DAYS="100")
    assert second.becomes(lambda: read("SELECT to_regclass('events_202507')") is None), second.log.read_text()
    # then all of it is gone, once, and the usage stays
    assert read("SELECT count(*) FROM claims") == 0
    assert read("SELECT array[events, usage_events] FROM dropped_events") == [300, 300]
    assert read("SELECT sum(events) FROM usage") == 300
    assert second.becomes(lambda: second.metric("taximeter_flusher_dropped_events_total") == 300)
    assert 0 <= second.metric("taximeter_flusher_dropped_claims_total") < 30000
    assert second.end() == 0
