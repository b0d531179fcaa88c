"""`taximeter chaos`: real processes, every fault, and the comparison that must notice what is planted."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flusher.chaos.notes import Note, Notes
from flusher.chaos.plan import EVERY_FAULT, Kind
from flusher.chaos.traffic import Batch, Event
from flusher.embedded.process import DirectoryLock, wait_until
from tests.conftest import make_server_dir

DEADLINE_S = 180.0
NEVER_SENT = 9_999_999


@pytest.fixture
def scratch() -> Iterator[Path]:
    directory = make_server_dir(Path("/tmp") if Path("/tmp").is_dir() else None)
    yield directory
    shutil.rmtree(directory)


def chaos(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flusher", "chaos", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = running.communicate(timeout=DEADLINE_S)
    return running.returncode, out, said


def test_every_fault_is_made_and_every_event_counts_once(scratch: Path) -> None:
    # when everything is broken for a quarter of a minute
    options = ("--seconds", "15", "--every", "1", "--rate", "500", "--seed", "20250721")
    status, out, said = ended(chaos("--data-dir", str(scratch), *options, "--json"))
    # then each fault was made, each on each part, and nothing is lost or counted twice
    assert status == 0, said
    report: dict[str, Any] = json.loads(out)
    assert report["ok"]
    assert set(report["faults"]) == {f"{part} {kind}" for kind, part in EVERY_FAULT}
    events = report["events"]
    assert events["sent"] == events["acknowledged"] + events["unanswered"]
    assert events["acknowledged"] > 1_000
    assert report["sums"] > 100
    assert report["proof"]["ok"]
    assert report["replay"] == "taximeter chaos --seed 20250721 --seconds 15 --rate 500 --every 1"
    assert f"redis {Kind.BACK}" in said


def test_what_is_lost_or_changed_behind_its_back_is_told_and_fails(scratch: Path) -> None:
    # given a run
    running = chaos("--data-dir", str(scratch), "--seconds", "8", "--every", "4", "--rate", "200", "--seed", "1")
    endpoints = scratch / "system" / "endpoints.json"
    until(lambda: endpoints.exists() and (scratch / "client.ndjson").exists(), running)
    # when its client believes in an answer that never came, and a row of usage vanishes
    event = Event("chaos-planted", "chaos_timed", "1", {"n": f"{NEVER_SENT}"}, "planted", "2025-07-21T09:34:21Z")
    notes = Notes(scratch / "client.ndjson")
    notes.add(Note(sending=Batch(NEVER_SENT, [event])))
    notes.add(Note(acknowledged=NEVER_SENT))
    notes.close()
    until(lambda: deleted(endpoints), running)
    # then it says both, and how to see it again
    status, out, _ = ended(running)
    assert status == 1
    assert f"event {NEVER_SENT} was acknowledged, and is counted 0 times" in out
    assert "  usage of chaos-" in out
    assert "the proof does not hold: usage" in out
    assert "Again: taximeter chaos --seed 1 " in out
    assert str(scratch) in out


def deleted(endpoints: Path) -> bool:
    """Deletes a row of usage; False while there is none, or nobody to ask."""
    try:
        url = json.loads(endpoints.read_text(encoding="utf-8"))["database"]
        with psycopg.connect(url, connect_timeout=2) as connection:
            one = "SELECT ctid FROM taximeter.usage WHERE meter = 'chaos_timed' LIMIT 1"
            return connection.execute(f"DELETE FROM taximeter.usage WHERE ctid IN ({one})").rowcount == 1
    except (OSError, psycopg.Error):
        return False


def until(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_run_that_is_ended_leaves_nothing_behind_not_even_what_it_has_stopped(scratch: Path) -> None:
    # given a run that has stopped a process, for longer than we look
    running = chaos("--data-dir", str(scratch), "--seconds", "600", "--every", "0.2", "--rate", "10", "--seed", "2")
    endpoints = scratch / "system" / "endpoints.json"
    until(lambda: any(state(pid) == "T" for pid in pids(endpoints)), running)
    known = pids(endpoints)
    # when it is asked to end
    running.terminate()
    status, _, _ = ended(running)
    # then nothing of it is there
    assert status == 130
    assert wait_until(lambda: all(state(pid) in {"", "Z"} for pid in known), deadline_s=20)


def pids(endpoints: Path) -> list[int]:
    try:
        return list(json.loads(endpoints.read_text(encoding="utf-8"))["pids"].values())
    except FileNotFoundError:
        return []


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_a_directory_with_something_else_in_it_is_left_alone(scratch: Path) -> None:
    (scratch / "precious").write_text("data", encoding="utf-8")
    status, _, said = ended(chaos("--data-dir", str(scratch)))
    assert status == 2
    assert "--data-dir: expected an empty directory, or one of an earlier run" in said
    assert [path.name for path in scratch.iterdir()] == ["precious"]


def test_a_directory_in_which_a_run_is_under_way_is_left_alone(scratch: Path) -> None:
    (scratch / "system").mkdir()
    (scratch / "chaos").touch()
    lock = DirectoryLock(scratch / "system" / "up.lock")
    lock.acquire(deadline_s=1)
    status, _, said = ended(chaos("--data-dir", str(scratch)))
    lock.release()
    assert status == 1
    assert "is already running on" in said


@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--rate", "none"), ("--every", "-1"), ("--seed", "x")])
def test_options_that_make_no_sense_are_wrong_use(arguments: tuple[str, str]) -> None:
    status, _, said = ended(chaos(*arguments))
    assert status == 2
    assert arguments[0] in said
