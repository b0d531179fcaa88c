"""`taximeter journal`: a damaged journal goes on, one whose sidecar is gone is sent, and what is missing is known."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import redis

from flusher.cli.main import main
from flusher.source import Source
from sidecar.contract import keys
from sidecar.contract.codec import encode_batch
from sidecar.contract.columns import Columns
from sidecar.contract.units import NANO
from sidecar.journal import Journal
from sidecar.segment import frame
from tests.protocol.system import System, an_event
from tests.protocol.test_faults import total
from tests.protocol.test_proof import prove
from tests.sidecar.journals import contents, fill, framed_bytes, held, open_journal, record, segments


def journal(action: str, directory: Path, *arguments: str) -> int:
    """Runs the command."""
    return main(["journal", action, str(directory), *arguments])


def flip(path: Path, at: int) -> None:
    """Damages one byte."""
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def test_a_journal_without_damage_is_left_as_it_is(server_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = server_dir / "journal"
    opened = open_journal(directory)
    fill(opened.shards[0], 5)
    opened.close()
    before = contents(directory)
    assert journal("repair", directory) == 0
    assert "5 whole records" in capsys.readouterr().out
    assert contents(directory) == before


@pytest.mark.parametrize("damaged", [0, 2, 4, 6])
def test_every_whole_record_is_kept_under_a_new_id(
    server_dir: Path, capsys: pytest.CaptureFixture[str], damaged: int
) -> None:
    # given seven records in files of two, one of which is damaged, and a torn end
    directory = server_dir / "journal"
    opened = open_journal(directory, segment_bytes=2 * framed_bytes())
    fill(opened.shards[0], 7)
    opened.close()
    path = segments(directory)[damaged // 2]
    flip(path, damaged % 2 * framed_bytes() + 45)
    if damaged == 6:
        fill_behind(path)
    with segments(directory)[-1].open("ab") as file:
        file.write(b"TMJ1 torn")
    before = contents(directory)
    # when a dry run is asked for, then nothing changes
    assert journal("repair", directory, "--dry-run", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert contents(directory) == before
    assert said["missing"] == [{"shard": 0, "from": damaged + 1, "to": damaged + 1}]
    # and when it is repaired, then it opens with all others, and what was damaged is put aside
    assert journal("repair", directory, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["changed"]
    wanted = [record(number) for number in range(1, 8) if number != damaged + 1] + [record(8)] * (damaged == 6)
    assert [step.record for step in held(directory)] == wanted
    again = open_journal(directory)
    assert again.manifest is not None
    assert again.manifest.producer == said["successor"]
    assert again.manifest.predecessors == (said["producer"],)
    assert [(one.first, one.last) for one in again.manifest.missing] == [(damaged + 1, damaged + 1)]
    again.close()
    assert len(list(directory.glob("*.damaged-*"))) == 1
    # and a second repair finds nothing
    assert journal("repair", directory, "--json") == 0
    assert not json.loads(capsys.readouterr().out)["changed"]


def fill_behind(path: Path) -> None:
    """Appends a whole record by hand, so that the one before is in the middle."""
    with path.open("ab") as file:
        file.write(frame(record(8), 1, 8))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_file_that_is_gone_is_missing(server_dir: Path, capsys: pytest.CaptureFixture[str], missing: int) -> None:
    directory = server_dir / "journal"
    opened = open_journal(directory, segment_bytes=2 * framed_bytes())
    steps = fill(opened.shards[0], 6)
    opened.shards[0]._rotate()
    opened.close()
    segments(directory)[missing].unlink()
    assert journal("repair", directory, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["missing"] == [{"shard": 0, "from": 2 * missing + 1, "to": 2 * missing + 2}]
    kept = steps[: 2 * missing] + steps[2 * missing + 2 :]
    assert [step.record for step in held(directory)] == [step.record for step in kept]


def test_a_journal_that_is_in_use_is_not_touched(server_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = server_dir / "journal"
    opened = open_journal(directory)
    assert journal("repair", directory) == 1
    assert "error: journal_locked" in capsys.readouterr().err
    opened.close()
    assert journal("repair", server_dir / "nothing") == 1
    assert "error: journal_" in capsys.readouterr().err


async def test_what_a_repair_could_not_read_is_a_hole_until_it_is_accepted(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given three batches that only the journal has, the second of them damaged
    await system.sidecar()
    await system.send([an_event("e-0")])
    await system.flush()
    await system.stop("a")
    directory = system.directory / "a"
    append_batches(directory, ["e-1", "e-2", "e-3"])
    (path,) = segments(directory)
    content = path.read_bytes()
    flip(path, content.index(b"e-2") + 1)
    # when it is repaired and the sidecar starts again
    assert journal("repair", directory) == 0
    await system.sidecar()
    # then everything else counts, and the proof fails over the hole
    assert await total(system) == 3
    ((producer, first, last),) = system.rows("SELECT producer, first_sequence, last_sequence FROM holes")
    assert first == last
    proof = await prove(system)
    assert [check.name for check in proof.checks if check.ok is False] == ["holes"]
    # and holds once it is accepted
    hole = f"{producer}/0/{first}"
    assert main(["holes", "accept", hole, "--reason", "bit rot", "--database-url", system.database_url]) == 0
    assert (await prove(system)).ok


async def test_a_repair_of_what_postgres_has_leaves_no_hole(system: System) -> None:
    # given batches that are all in Postgres, one of them damaged on disk since
    for number in range(4):
        await system.send([an_event(f"e-{number}")])
    await system.flush()
    await system.stop("a")
    (path,) = segments(system.directory / "a")
    flip(path, path.read_bytes().index(b"e-2") + 1)
    # when it is repaired and goes on
    assert journal("repair", system.directory / "a") == 0
    await system.send([an_event("e-4"), an_event("e-1")])
    # then nothing is missing
    assert await total(system) == 5
    assert system.rows("SELECT count(*) FROM holes") == [(0,)]
    assert (await prove(system)).ok


async def test_a_journal_whose_sidecar_is_gone_is_sent_and_closes_the_hole_that_it_left(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a sidecar that was given up on, with records of which only Redis had heard
    await system.sidecar()
    await system.send([an_event("e-0")])
    await system.flush()
    await system.send([an_event("e-1"), an_event("e-2")])
    ((producer,),) = system.rows("SELECT producer FROM producers")
    await system.stop("a")
    forget_the_stream(system)
    append_batches(system.directory / "a", ["e-3"])
    target = ("--redis-url", system.redis_url, "--database-url", system.database_url)
    retire = ["producers", "retire", producer, "--reason", "host gone", "--force", *target]
    assert await asyncio.to_thread(main, retire) == 0
    assert [check.name for check in (await prove(system)).checks if check.ok is False] == ["holes"]
    # when its disk turns up and is sent, while a flusher runs
    stopping = asyncio.Event()

    async def cycle() -> None:
        while not stopping.is_set():
            await asyncio.to_thread(system.worker.run_once)
            await asyncio.sleep(0.05)

    cycling = asyncio.create_task(cycle())
    capsys.readouterr()
    send = ["journal", "send", str(system.directory / "a"), "--redis-url", system.redis_url, "--wait", "30", "--json"]
    assert await asyncio.to_thread(main, send) == 0
    await asyncio.sleep(0.5)
    stopping.set()
    await cycling
    # then everything counts once, the hole is closed with its trace, and nobody waits for it
    sent = json.loads(capsys.readouterr().out)
    assert sent["producer"] == producer
    assert await total(system) == 4
    ((reason,),) = system.rows("SELECT reason FROM holes WHERE accepted_at IS NOT NULL")
    assert reason == "the records were sent after all"
    assert system.rows("SELECT count(*) FROM producers WHERE retired_at IS NULL") == [(0,)]
    assert (await prove(system)).ok


async def test_a_journal_that_nobody_drains_is_said_to_wait(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    await system.send([an_event("e-0")])
    await system.stop("a")
    shutil.copytree(system.directory / "a", system.directory / "copy")
    send = ["journal", "send", str(system.directory / "copy"), "--redis-url", system.redis_url, "--wait", "0.3"]
    assert await asyncio.to_thread(main, send) == 75
    assert "error: journal_waiting: Postgres lacks" in capsys.readouterr().err


def append_batches(directory: Path, ids: list[str]) -> None:
    """Journals a batch for every id, as a sidecar does that has no Redis."""
    opened = Journal(directory, bytes_max=1 << 26, segment_bytes=1 << 20)
    for one in ids:
        batch = Columns.of([an_event(one)]).batch(0, 0, 1, 1)
        opened.shards[0].append(encode_batch(batch), 1, NANO)
    opened.close()


def forget_the_stream(system: System) -> None:
    """Takes the entries of the open epoch away, so that Redis knows of records which nobody has."""
    source = Source.connect(system.redis_url)
    generation = source.state(0).generation
    source.close()
    assert generation is not None
    with redis.Redis.from_url(system.redis_url) as client:
        client.delete(*keys.open_epoch(0, generation))
