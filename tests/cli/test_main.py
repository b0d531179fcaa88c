"""The command line itself: help, wrong use, errors, interrupts and broken pipes."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from flusher.cli import main as cli
from sidecar.contract.codes import TaximeterError, TryAgainError

RunWith = Callable[[Callable[[argparse.Namespace], int]], int]


def _taximeter(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flusher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> RunWith:
    """Runs `taximeter flush` with a function of the test as what the command does."""

    def run(action: Callable[[argparse.Namespace], int]) -> int:
        module = ModuleType("command_of_the_test")
        module.__dict__.update(add_arguments=lambda parser: None, run=action)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "flush", cli.Command(module.__name__, "flush"))
        return cli.main(["flush"])

    return run


def _raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def action(_: argparse.Namespace) -> int:
        raise error

    return action


def test_help_lists_every_command_and_imports_none() -> None:
    shown = _taximeter("--help")
    assert shown.returncode == 0
    for name, command in cli.COMMANDS.items():
        assert name in shown.stdout
        assert command.help.split()[0] in shown.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    assert _taximeter("--version").stdout == "taximeter 0.1.0\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str) -> None:
    shown = _taximeter(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"usage: taximeter {name}" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["--nonsense"], ["up", "--nonsense"], ["up", "--dat", "x"], ["up", "surplus"]],
)
def test_wrong_use_exits_with_2_and_says_how_it_is_used(arguments: list[str]) -> None:
    shown = _taximeter(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert "usage: taximeter" in shown.stderr


def test_only_the_module_of_the_chosen_command_is_imported() -> None:
    code = "import sys; from flusher.cli.main import main; main(['price', '--help'])"
    tell = "print([name for name in sys.modules if name.startswith('flusher.cli.')], file=sys.stderr)"
    script = f"import atexit, sys; atexit.register(lambda: {tell}); {code}"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "flusher.cli.price" in shown.stderr
    assert "flusher.cli.up" not in shown.stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (TaximeterError("ledger_mismatch", "another ledger"), 1, "error: ledger_mismatch: another ledger\n"),
        (TryAgainError("redis_unavailable", "try later"), 75, "error: redis_unavailable: try later\n"),
        (TaximeterError("usage_invalid", "no such day"), 2, "error: usage_invalid: no such day\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_is_a_line_and_an_exit_status(
    error: BaseException, status: int, said: str, run_with: RunWith, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(_raising(error)) == status
    assert capsys.readouterr() == ("", said)


def test_the_status_of_the_command_is_the_exit_status(run_with: RunWith) -> None:
    assert run_with(lambda _: 75) == 75


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    # Given a command whose output nobody reads to the end
    code = (
        "import sys, types; from flusher.cli import main as cli\n"
        "module = types.ModuleType('talker')\n"
        "module.add_arguments = lambda parser: None\n"
        "module.run = lambda args: [print('x' * 100) for _ in range(10_000)] and 0\n"
        "sys.modules['talker'] = module\n"
        "cli.COMMANDS['flush'] = cli.Command('talker', 'talk')\n"
        "sys.exit(cli.main(['flush']))\n"
    )
    shown = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -n 1', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Then there is no complaint
    assert shown.stdout == "x" * 100 + "\n"
    assert shown.stderr == ""


def test_the_modules_of_all_commands_are_there() -> None:
    for command in cli.COMMANDS.values():
        module = import_module(command.module)
        assert callable(module.add_arguments)
        assert callable(module.run)


def test_a_command_whose_library_is_left_out_says_what_to_install(tmp_path: Path) -> None:
    # given an install where psycopg can't be found
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(\"No module named 'psycopg'\", name='psycopg')\n")
    # when a command needs it
    done = subprocess.run(
        [sys.executable, "-m", "flusher", "flush"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    # then one line says what to do
    assert done.returncode == 1
    assert done.stderr.startswith("error: install_incomplete: `taximeter flush` needs psycopg")
    assert len(done.stderr.splitlines()) == 1
