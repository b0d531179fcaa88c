"""Restarting what has ended."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flusher.embedded import supervisor as supervision
from flusher.embedded.process import wait_until
from flusher.embedded.supervisor import Program, Supervisor, answers_ready
from sidecar.contract.codes import TaximeterError

SLEEPS = "import time; time.sleep(600)"


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


def _program(log_dir: Path, programs: list[Program], code: str) -> Program:
    program = Program(
        f"program {len(programs)}", [sys.executable, "-c", code], log=log_dir / "log", environment=dict(os.environ)
    )
    programs.append(program)
    program.start()
    return program


def _checks_until(supervisor: Supervisor, condition: Callable[[], bool], *, deadline_s: float) -> bool:
    def checked() -> bool:
        supervisor.check()
        return condition()

    return wait_until(checked, deadline_s=deadline_s)


def test_what_has_ended_is_started_again(tmp_path: Path, programs: list[Program]) -> None:
    # Given two programs
    told: list[str] = []
    changes: list[int] = []
    stays, ends = (_program(tmp_path, programs, SLEEPS) for _ in range(2))
    supervisor = Supervisor([stays, ends], tell=told.append, changed=lambda: changes.append(1))
    before = stays.pid
    # When one is killed
    assert ends.pid is not None
    os.kill(ends.pid, signal.SIGKILL)
    assert wait_until(lambda: ends.pid is None, deadline_s=60)
    # Then it runs again, which is told, and the other was left alone
    assert _checks_until(supervisor, lambda: bool(changes), deadline_s=60)
    assert ends.pid is not None
    assert stays.pid == before
    assert told == [
        "program 1 ended; starting it again in 0.2 s",
        f"program 1 runs again (process {ends.pid})",
    ]


def test_what_ends_again_at_once_is_started_ever_more_seldom(
    tmp_path: Path, programs: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY_S", 0.01)
    told: list[str] = []
    supervisor = Supervisor(
        [_program(tmp_path, programs, "")], tell=told.append, changed=lambda: None, longest_delay_s=0.04
    )

    def delays() -> list[str]:
        return [line.split()[-2] for line in told if "ended" in line]

    assert _checks_until(supervisor, lambda: len(delays()) == 4, deadline_s=20)
    assert delays() == ["0.01", "0.02", "0.04", "0.04"]


def test_what_ran_long_enough_is_started_again_soon(
    tmp_path: Path, programs: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(supervision, "HEALTHY_AFTER_S", 0.0)
    told: list[str] = []
    supervisor = Supervisor([_program(tmp_path, programs, "")], tell=told.append, changed=lambda: None)
    assert _checks_until(supervisor, lambda: len(told) >= 5, deadline_s=20)
    assert {line for line in told if "ended" in line} == {"program 0 ended; starting it again in 0.01 s"}


def test_a_program_that_ends_before_it_is_ready_shows_its_log(tmp_path: Path, programs: list[Program]) -> None:
    program = _program(tmp_path, programs, "raise SystemExit('the reason')")
    with pytest.raises(TaximeterError, match=r"(?s)ended with status 1 while starting.*the reason"):
        program.wait_ready(lambda: False, deadline_s=20)


def test_a_program_that_does_not_stop_is_killed(tmp_path: Path, programs: list[Program]) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);" + SLEEPS
    program = Program("deaf", [sys.executable, "-c", deaf], log=tmp_path / "log", environment={}, stop_deadline_s=0.2)
    programs.append(program)
    program.start()
    assert wait_until(lambda: (tmp_path / "log").read_text(encoding="utf-8") == "deaf\n", deadline_s=60)
    with pytest.raises(TaximeterError, match=r"deaf did not stop within 0.2 s and was killed"):
        program.stop()
    assert program.pid is None


def test_an_address_where_nobody_listens_is_not_ready() -> None:
    assert not answers_ready("127.0.0.1", 1)
