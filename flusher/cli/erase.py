"""`taximeter erase`: replace who a customer was by random tokens; what was counted and billed stays."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from flusher.cli.actions import ledger_of
from flusher.cli.output import print_json, progress
from flusher.cli.target import add_target_arguments, find_target
from flusher.erasure import Erased, Eraser
from flusher.pricing.line import rfc3339
from flusher.source import Source
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare whom to erase, and that it may be done unasked."""
    parser.add_argument("--customer", metavar="C", required=True, help="whom, with all of its users")
    parser.add_argument("--yes", action="store_true", help="do not ask: there is no way back")
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "redis", "database")


def run(args: argparse.Namespace) -> int:
    """Erase a customer and say what was changed.

    Raises TaximeterError: erasure_refused, not_confirmed, usage_invalid; TryAgainError: erasure_waits, or when a server
    is away.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not args.yes and not sys.stdin.isatty():
        raise TaximeterError("usage_invalid", "what is erased is gone, and nobody can be asked here: add --yes")
    target = find_target(args)
    redis_url, database_url = target.need_redis(), target.need_database()
    target.announce("redis", "database")
    with (
        ledger_of(target) as connection,
        closing(Worker.connect(redis_url, database_url)) as worker,
        closing(Source.connect(redis_url)) as source,
        _watched() as heard,
    ):
        eraser = Eraser(connection, worker, source, args.customer, heard=heard)
        if not eraser.is_begun():
            eraser.check()
            if not args.yes:
                _confirm(args.customer, eraser.users())
        erased = eraser.run()
    if args.json:
        print_json(_as_json(erased))
    else:
        sys.stdout.write(_summary(args.customer, erased))
    return 0


def _confirm(customer: str, users: list[str]) -> None:
    """Ask before anything is erased. Raises TaximeterError `not_confirmed` unless the answer is the customer's id."""
    sys.stderr.write(f"erase who {customer} was ({len(users)} users)? There is no way back. Write its id to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != customer:
        raise TaximeterError("not_confirmed", "nothing was erased")


@contextmanager
def _watched() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done."""
    with progress() as shown:
        task = shown.add_task("erasing", total=None, note="")
        yield lambda note: shown.update(task, note=note)


def _as_json(erased: Erased) -> dict[str, object]:
    return {
        "token": erased.token,
        "users": erased.users,
        "changed": dict(erased.counts),
        "begun_at": rfc3339(erased.begun_at),
        "finished_at": rfc3339(erased.finished_at),
    }


def _summary(customer: str, erased: Erased) -> str:
    lines = [f"{customer} is {erased.token} from now on"]
    lines += [f"{count:,} rows of {name}" for name, count in erased.counts.items()]
    if not erased.counts:
        lines.append("nothing of it was found")
    lines += [
        "sidecars' journals hold their records until the hold (`--journal-hold-s`) is over;",
        "backups, Postgres's old row versions (until VACUUM) and Stripe are not changed",
    ]
    return "\n".join(lines) + "\n"
