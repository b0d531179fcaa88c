"""The entry point of `taximeter`: finds the command, runs it, and turns what happened into an exit status.

A command is a module with ``add_arguments(parser)`` and ``run(args) -> int``. It returns its exit status or raises
a TaximeterError; only the module of the chosen command is imported, so that each starts as fast as it can.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, Protocol, cast

from sidecar.contract.codes import TaximeterError, TryAgainError

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
TRY_AGAIN: Final = 75
_INTERRUPTED: Final = 130
_EXTRAS: Final = frozenset({"psycopg", "stripe", "rich"})  # what an install of a sidecar leaves out


class Command(NamedTuple):
    """Where a command lives and the line that `taximeter --help` shows for it."""

    module: str
    help: str


class CommandModule(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit status; raise TaximeterError for what a person should read."""


COMMANDS: Final[dict[str, Command]] = {
    "demo": Command("flusher.cli.demo", "show it all: real events through real processes, and the invoice"),
    "up": Command("flusher.cli.up", "run everything here, in the foreground, with data kept in a directory"),
    "sidecar": Command("flusher.cli.sidecar", "run one sidecar, for production"),
    "flusher": Command("flusher.cli.flusher", "run one flusher, for production"),
    "migrate": Command("flusher.cli.migrate", "bring the schema in PostgreSQL up to date"),
    "apply": Command("flusher.cli.apply", "apply a catalog of meters, plans, customers and subscriptions"),
    "subscriptions": Command("flusher.cli.subscriptions", "list, import, change and end subscriptions"),
    "doctor": Command("flusher.cli.doctor", "check the whole set-up and say what to mend"),
    "send": Command("flusher.cli.send", "send events from a file or standard input; safe to repeat"),
    "backfill": Command("flusher.cli.backfill", "bring in events of the past, see first what that costs, and undo it"),
    "usage": Command("flusher.cli.usage", "show what was counted"),
    "flush": Command("flusher.cli.flush", "bring everything that is in Redis into PostgreSQL now"),
    "invoice": Command("flusher.cli.invoice", "make every invoice that is due"),
    "invoices": Command("flusher.cli.invoices", "list the invoices, or show one"),
    "credit": Command("flusher.cli.credit", "take something off a final invoice: draft, issue or discard credit notes"),
    "credits": Command("flusher.cli.credits", "list what customers have prepaid, grant more, or take it back"),
    "simulate": Command("flusher.cli.simulate", "rate past usage by a plan that does not exist yet, old beside new"),
    "explain": Command("flusher.cli.explain", "show where every line of an invoice comes from"),
    "late": Command("flusher.cli.late", "list usage that came too late to be billed by itself, and let it be billed"),
    "meters": Command("flusher.cli.meters", "list usage that is not at Stripe's meters yet, and decide on it"),
    "reconcile": Command("flusher.cli.reconcile", "compare every invoice here with what Stripe has"),
    "webhooks": Command("flusher.cli.webhooks", "receive Stripe's events, and bring invoices to paid or void"),
    "price": Command("flusher.cli.price", "show what a price makes of a quantity"),
    "verify": Command("flusher.cli.verify", "prove that what was accepted is what will be billed"),
    "rebuild": Command("flusher.cli.rebuild", "restore Redis from PostgreSQL; safe at any time"),
    "producers": Command("flusher.cli.producers", "list the sidecars, and give up on one that will not come back"),
    "journal": Command("flusher.cli.journal", "repair a damaged journal, or send one whose sidecar is gone"),
    "holes": Command("flusher.cli.holes", "list records that are known to be missing, and accept that they are"),
    "chaos": Command("flusher.cli.chaos", "kill, stop and wipe anything, and prove that every event counts once"),
    "bench": Command("flusher.cli.bench", "measure how fast it is here, beside ceilings and peers"),
    "erase": Command("flusher.cli.erase", "replace who a customer was by random tokens; amounts stay"),
    "quarantine": Command(
        "flusher.cli.quarantine", "list accepted events that can't be counted, retry or discard them"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: this process's) and return the exit status.

    0 done, 1 failed, 2 wrong use, 75 try again later. Errors are one line on standard error.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except TryAgainError as error:
        return _fail(error, TRY_AGAIN)
    except TaximeterError as error:
        return _fail(error, WRONG_USE if error.code == "usage_invalid" else FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python must not try to flush the rest into the broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="taximeter",
        description="Metering and billing by use: every event counted exactly once, provably.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong use, 75 try again later.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"taximeter {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    chosen = next((argument for argument in arguments if argument in COMMANDS), None)
    module: CommandModule | None = None
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help, description=_sentence(command), allow_abbrev=False)
        if name == chosen:
            module = _load(name, command)
            module.add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    if module is None:  # the parser ends the program itself for help, the version and wrong use
        parser.error("no command was given")
    return module.run(parsed)


def _load(name: str, command: Command) -> CommandModule:
    """Import a command. Raises TaximeterError (install_incomplete) where this install leaves out what it needs."""
    try:
        return cast("CommandModule", import_module(command.module))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise TaximeterError(
            "install_incomplete",
            f"`taximeter {name}` needs {error.name}, and only a sidecar is installed here: "
            "pip install 'taximeter[flusher]', or 'taximeter[embedded]' for demo and up",
        ) from error


def _sentence(command: Command) -> str:
    return f"{command.help[:1].upper()}{command.help[1:]}."


def _version() -> str:
    try:
        return version("taximeter")
    except PackageNotFoundError:
        return "(not installed)"


def _fail(error: TaximeterError, status: int) -> int:
    sys.stderr.write(f"error: {error.code}: {error.message}\n")
    return status
