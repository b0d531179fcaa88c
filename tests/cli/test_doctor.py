"""`taximeter doctor`: what it finds on real servers, and what it says to what it finds."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from flusher.cli.main import main
from flusher.database import connect
from flusher.doctor import sidecar_process
from flusher.doctor.examine import SetUp, examine
from flusher.doctor.finding import Finding, Level
from flusher.doctor.ledger_state import Producer, Shard, judge_clock, judge_producers, judge_shard
from flusher.doctor.postgres_server import judge_postgres
from flusher.doctor.redis_server import BACKLOG_MAX, judge_backlog, judge_cluster, judge_redis, judge_spread
from flusher.doctor.sidecar_process import (
    LAG_MAX,
    check_journal,
    check_sidecar,
    file_system_of,
    judge_figures,
    judge_file_system,
)
from flusher.embedded.system import free_address
from flusher.embedded.valkey import ValkeyServer
from flusher.source import Sealed, ShardState
from flusher.worker import Worker
from sidecar.contract import keys
from sidecar.contract.slots import SLOTS, Servers, SlotRange
from tests.cli.running import Up

SERVER: Mapping[str, Any] = {
    "version": 160004,
    "in_recovery": False,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "a",
    "standbys": 1,
    "synchronous_standbys": 1,
}
INFO: Mapping[str, Any] = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "used_memory": 1 << 20,
    "maxmemory": 1 << 30,
    "total_system_memory": 1 << 33,
}
OPEN = ShardState(ledger="l", shards=1, generation="g", token="t")


@pytest.fixture(autouse=True)
def _no_system_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TAXIMETER_REDIS_URL", "REDIS_URL", "TAXIMETER_DATABASE_URL", "DATABASE_URL", "TAXIMETER_HTTP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TAXIMETER_JOURNAL_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


def _named(found: list[Finding]) -> dict[str, Finding]:
    return {f"{one.part}.{one.name}": one for one in found}


def _not_ok(found: list[Finding]) -> dict[str, Level]:
    for one in found:
        assert (one.level is Level.OK) == (one.remedy == ""), one
    return {f"{one.part}.{one.name}": one.level for one in found if one.level is not Level.OK}


def _drain(redis_url: str, database_url: str) -> None:
    with closing(Worker.connect(redis_url, database_url)) as worker:
        worker.flush()


def test_a_running_system_has_nothing_that_fails(
    up: Up, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system on a disk (the tests' own directories may be in memory), in which an event was just counted
    (tmp_path / "mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(sidecar_process, "_MOUNTS", tmp_path / "mounts")
    up.send({"user_id": "cus_doctor", "event_type": "x"})
    up.command("flush")
    # When it is looked at
    assert main(["doctor", "--json", "--data-dir", str(up.data_dir)]) == 0
    report = json.loads(capsys.readouterr().out)
    # Then every part was, and nothing failed
    assert report["ok"] is True
    assert {check["part"] for check in report["checks"]} == {
        *("redis", "postgres", "ledger", "sidecars", "sidecar", "journal")
    }
    levels = {f"{check['part']}.{check['name']}": check["level"] for check in report["checks"]}
    assert levels["ledger.shard_0"] == levels["sidecar.ready"] == levels["redis.clock"] == "ok"
    assert levels["postgres.standby"] == "warn"
    # And a person gets the remedy below what it is for
    assert main(["doctor", "--data-dir", str(up.data_dir)]) == 0
    shown = capsys.readouterr().out
    assert "-> run a synchronous standby" in shown
    assert "ok    sidecar.ready" in shown


def test_what_does_not_answer_is_a_finding_and_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = free_address().text
    arguments = ["--redis-url", f"redis://{nowhere}", "--database-url", f"postgresql://{nowhere}/x"]
    assert main(["doctor", *arguments, "--http", nowhere, "--journal-dir", str(tmp_path / "none")]) == 1
    shown = capsys.readouterr().out
    for name in ("redis.reachable", "postgres.reachable", "sidecar.ready", "journal.directory"):
        assert f"fail  {name}" in shown
    assert "4 failed" in shown


def test_without_anything_to_look_at_it_says_how_to_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 1
    assert "error: target_missing" in capsys.readouterr().err


def test_the_parts_that_nothing_names_are_said(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--redis-url", redis_url]) == 0
    assert "not looked at, as nothing names it: --database-url, --http, --journal-dir" in capsys.readouterr().err


def test_a_database_without_the_schema_fails_and_nothing_that_needs_it_is_asked(
    redis_url: str, make_database: Callable[..., str]
) -> None:
    found = _named(examine(SetUp(redis_url, make_database(migrated=False))))
    assert found["postgres.schema"].level is Level.FAIL
    assert "taximeter migrate" in found["postgres.schema"].detail
    assert not any(name.startswith("ledger.") for name in found)


def test_a_redis_that_no_flusher_has_met_fails(redis_url: str, database_url: str) -> None:
    found = _not_ok(examine(SetUp(redis_url, database_url)))
    assert found["ledger.identity"] is found["ledger.shard_0"] is Level.FAIL
    # Until one has
    _drain(redis_url, database_url)
    found = _not_ok(examine(SetUp(redis_url, database_url)))
    assert found == {"redis.durability": Level.WARN, "postgres.durability": Level.FAIL} | {
        "postgres.standby": Level.WARN,
        "sidecars.registered": Level.WARN,
    }


def test_a_cluster_with_slots_that_no_primary_has_fails_and_how_shards_fell_is_told() -> None:
    url = "redis://:secret@10.0.0.1:6379"
    whole = Servers(cluster=True, ranges=(SlotRange(0, SLOTS - 1, url),))
    assert judge_cluster(whole).level is Level.OK
    torn = judge_cluster(Servers(cluster=True, ranges=(SlotRange(0, 99, url), SlotRange(200, SLOTS - 1, url))))
    assert (torn.level, torn.detail) == (Level.FAIL, "primaries: 1; 100 slots have no primary")
    assert judge_spread(whole, 4).detail == "shards: 4; 10.0.0.1:6379 has 4"


def test_a_redis_of_another_ledger_fails(redis_url: str, database_url: str, make_database: Callable[..., str]) -> None:
    _drain(redis_url, make_database(shards=2))  # databases with as many shards are copies of one
    found = _named(examine(SetUp(redis_url, database_url)))
    assert found["ledger.identity"].level is Level.FAIL
    assert "belong together" in found["ledger.identity"].remedy


def test_a_redis_that_was_taken_back_is_noticed(redis_url: str, database_url: str) -> None:
    _drain(redis_url, database_url)
    with connect(database_url) as connection:
        connection.execute("UPDATE shards SET token = 'another'")
    assert _not_ok(examine(SetUp(redis_url, database_url)))["ledger.shard_0"] is Level.WARN


def test_a_sidecar_that_waits_for_a_flusher_is_noticed(redis_url: str, database_url: str) -> None:
    _drain(redis_url, database_url)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.ASKING, "producer", '{"ledger": "l"}')
    found = _named(examine(SetUp(redis_url, database_url)))
    assert found["sidecars.registered"].level is Level.FAIL


def test_what_an_operator_has_to_look_at_is_counted(redis_url: str, database_url: str) -> None:
    _drain(redis_url, database_url)
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO discrepancies (shard, epoch, user_id, meter, dimensions, window_start, counter_units, "
            "counter_events, stream_units, stream_events) VALUES (0, 'e', 'u', 'm', '{}', now(), 1, 1, 2, 2)"
        )
        connection.execute(
            "INSERT INTO quarantine (producer, shard, sequence, reason, detail, record, events, units) "
            "VALUES ('p', 0, 1, 'r', 'd', '', 3, 3), ('p', 0, 2, 'r', 'd', '', 4, 4)"
        )
        connection.execute("INSERT INTO holes VALUES ('p', 0, 5, 6, 7)")
    found = _named(examine(SetUp(redis_url, database_url)))
    assert (found["ledger.discrepancies"].level, found["ledger.discrepancies"].detail) == (Level.FAIL, "1 open")
    assert (found["ledger.quarantine"].level, found["ledger.quarantine"].detail) == (Level.WARN, "7 events")
    assert (found["ledger.holes"].level, found["ledger.holes"].detail) == (Level.FAIL, "1 not accepted")


def test_a_redis_that_evicts_and_keeps_no_file_is_noticed(start_valkey: Callable[..., ValkeyServer]) -> None:
    server = start_valkey(appendonly="no", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    assert _not_ok(examine(SetUp(redis=server.url))) == {"redis.eviction": Level.FAIL, "redis.durability": Level.WARN}


def test_every_supported_redis_is_fine(every_redis_url: str) -> None:
    found = _named(examine(SetUp(redis=every_redis_url)))
    assert found["redis.version"].level is found["redis.eviction"].level is found["redis.memory"].level is Level.OK


def test_a_sidecar_that_does_not_accept_says_why(up: Up) -> None:
    found = {one.name: one for one in check_sidecar(up.endpoints["http"])}
    assert {name: one.level for name, one in found.items()} == {
        "ready": Level.OK,
        "sending": Level.OK,
        "journal": Level.OK,
    }
    assert found["sending"].detail == "1 shards are connected; 0 batches of the journal wait to be sent"
    (silent,) = check_sidecar(f"http://{free_address().text}")
    assert (silent.level, silent.remedy) == (Level.FAIL, "start it, or name its address with --http")


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({}, "", Level.OK),
        ({"redis_version": "6.2.14"}, "version", Level.FAIL),
        ({"maxmemory_policy": "volatile-ttl"}, "eviction", Level.FAIL),
        ({"aof_enabled": 0}, "durability", Level.WARN),
        ({"aof_last_write_status": "err"}, "durability", Level.FAIL),
        ({"used_memory": 800 << 20}, "memory", Level.WARN),
        ({"used_memory": 880 << 20}, "memory", Level.FAIL),  # sidecars stopped sending
        ({"maxmemory": 0, "used_memory": 8000 << 20}, "memory", Level.WARN),
        ({"role": "slave"}, "role", Level.FAIL),
    ],
)
def test_redis_is_judged_by_what_it_says_of_itself(changed: dict[str, Any], name: str, level: Level) -> None:
    expected = {f"redis.{name}": level} if name else {}
    assert _not_ok(list(judge_redis({**INFO, **changed}))) == expected


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({}, "", Level.OK),
        ({"version": 140012}, "version", Level.FAIL),
        ({"in_recovery": True}, "role", Level.FAIL),
        ({"fsync": "off"}, "durability", Level.FAIL),
        ({"full_page_writes": "off"}, "durability", Level.FAIL),
        ({"synchronous_standbys": 0}, "standby", Level.WARN),
        ({"synchronous_standbys": 0, "synchronous_standby_names": ""}, "standby", Level.WARN),
        ({"synchronous_standbys": 0, "standbys": 0, "synchronous_standby_names": ""}, "standby", Level.WARN),
        ({"synchronous_commit": "local"}, "standby", Level.WARN),
        ({"synchronous_commit": "off"}, "durability", Level.WARN),
    ],
)
def test_postgres_is_judged_by_its_settings(changed: dict[str, Any], name: str, level: Level) -> None:
    expected = {f"postgres.{name}": level} if name else {}
    assert _not_ok(list(judge_postgres({**SERVER, **changed}))) == expected


@pytest.mark.parametrize(
    ("shard", "level"),
    [
        (Shard(0, "t", 5, OPEN, 3), Level.OK),
        (Shard(0, "t", 500, OPEN, 0), Level.OK),
        (Shard(0, "t", 500, OPEN, 3), Level.FAIL),
        (Shard(0, "u", 5, OPEN, 0), Level.WARN),
        (Shard(0, "s", 5, ShardState("l", 1, "g", token="t", sealed=Sealed("s", "t", 1)), 1), Level.OK),
        (Shard(0, "t", 5, ShardState("l", 1, "g", fenced=True, token="t"), 0), Level.FAIL),
        (Shard(0, "t", 5, ShardState(), 0), Level.FAIL),
    ],
)
def test_a_shard_flows_when_it_is_open_and_drained(shard: Shard, level: Level) -> None:
    assert judge_shard(shard).level is level


@pytest.mark.parametrize(
    ("behind_s", "level", "said"),
    [
        (-1, Level.OK, ""),
        (5, Level.OK, ""),
        (61, Level.WARN, "let it reach Redis"),
        (3601, Level.WARN, "producers retire"),
        (None, Level.WARN, "flusher"),
    ],
)
def test_a_sidecar_that_is_silent_is_noticed(behind_s: int | None, level: Level, said: str) -> None:
    (found,) = judge_producers([Producer("p", "", behind_s)], 0)
    assert found.level is level
    assert said in found.remedy


@pytest.mark.parametrize(
    ("changed", "levels"),
    [
        ({}, {}),
        ({"redis_shards_connected": 0}, {"sidecar.sending": Level.FAIL}),
        ({"sending_paused": 1}, {"sidecar.sending": Level.WARN}),
        ({"redis_lag_batches": LAG_MAX + 1}, {"sidecar.sending": Level.WARN}),
        ({"journal_bytes": 76}, {"sidecar.journal": Level.WARN}),
        ({"journal_bytes": 99}, {"sidecar.journal": Level.WARN}),  # what Postgres has gives way
        ({"journal_bytes": 89, "sending_paused": 1}, {"sidecar.sending": Level.WARN, "sidecar.journal": Level.WARN}),
        ({"journal_bytes": 91, "sending_paused": 1}, {"sidecar.sending": Level.WARN, "sidecar.journal": Level.FAIL}),
        (
            {"journal_bytes": 91, "redis_shards_connected": 0},
            {"sidecar.sending": Level.FAIL, "sidecar.journal": Level.FAIL},
        ),
    ],
)
def test_a_sidecar_is_judged_by_its_figures(changed: dict[str, float], levels: dict[str, Level]) -> None:
    figures = {"redis_shards_connected": 1, "redis_lag_batches": 3, "journal_bytes": 10, "journal_bytes_max": 100.0}
    found = list(judge_figures({f"taximeter_{name}": value for name, value in {**figures, **changed}.items()}))
    assert len(found) == 2
    assert _not_ok(found) == levels


def test_a_sidecar_that_says_less_is_judged_by_less() -> None:
    assert list(judge_figures({})) == []


def test_what_waits_in_redis_is_counted_without_postgres(redis_url: str, database_url: str) -> None:
    _drain(redis_url, database_url)
    with redis.Redis.from_url(redis_url) as client:
        generation = client.hget(keys.state(0), "generation")
        assert isinstance(generation, bytes)
        client.xadd(keys.open_epoch(0, generation.decode()).stream, {"a": "b"})
    found = _named(examine(SetUp(redis_url)))
    assert found["redis.backlog"].detail == "1 batches wait to be drained"
    assert judge_backlog(BACKLOG_MAX + 1).level is Level.WARN


def test_clocks_may_differ_by_a_second() -> None:
    assert judge_clock("redis", -1.0).level is Level.OK
    assert judge_clock("redis", 1.5).detail == "1.500 s ahead of this machine's clock"
    assert judge_clock("redis", -1.5).level is Level.WARN


MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/sdb1 /var/lib xfs rw 0 0
server:/x /mnt/my\040share nfs4 rw 0 0
fuse /var/lib/fuse fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/var/lib/taximeter", "xfs", Level.OK),
        ("/var/library", "ext4", Level.OK),
        ("/dev/shm/x", "tmpfs", Level.FAIL),
        ("/mnt/my share/x", "nfs4", Level.WARN),
        ("/var/lib/fuse", "fuse.sshfs", Level.WARN),
    ],
)
def test_a_journal_belongs_on_a_local_disk(path: str, kind: str, level: Level) -> None:
    found = file_system_of(Path(path), MOUNTS)
    assert found == kind
    assert judge_file_system(found).level is level


def test_a_container_layer_is_no_place_for_a_journal() -> None:
    assert judge_file_system("overlay").remedy.startswith("mount a volume")
    assert judge_file_system("").level is Level.OK


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = _named(check_journal(tmp_path))
    assert (found["journal.space"].level, found["journal.space"].detail) == (Level.WARN, "1000 B free")
