"""`taximeter subscriptions`: list them, import a file of them, put one on another plan, end one."""

import argparse
import sys
from datetime import datetime
from typing import cast

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.catalog.encode import change_table, subscription_table
from flusher.catalog.model import PlanChange, Subscription
from flusher.catalog.problem import CatalogError
from flusher.catalog.reader import Report
from flusher.catalog_store import load_subscriptions, read_now
from flusher.cli.actions import add_actions, ledger_of, time_text
from flusher.cli.instant import instant
from flusher.cli.invoices import LIMIT_DEFAULT, LIMIT_MAX, limit
from flusher.cli.output import console, print_json, print_json_rows, progress
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.sending.file import open_events
from flusher.subscribing import Written, change_subscription, end_subscription, import_subscriptions
from flusher.subscription_file import csv_rows, ndjson_rows
from sidecar.contract.codes import TaximeterError

PERIOD_END = "period_end"
_FORMATS = {"csv": csv_rows, "ndjson": ndjson_rows}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, and what is done with a file of subscriptions and with one of them."""
    parser.add_argument("--customer", metavar="C", help="list only this customer's")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=limit,
        default=LIMIT_DEFAULT,
        help=f"list at most N, up to {LIMIT_MAX} (default: %(default)s)",
    )
    parser.add_argument("--after", metavar="ID", help="list those that follow this one, by id")
    _add_common(parser)
    importing, changing, ending = add_actions(
        parser,
        {
            "import": "add the subscriptions of a file, or change those that exist, by id; all or none",
            "change": "put a subscription on another plan",
            "end": "end a subscription",
        },
    )
    importing.add_argument("file", metavar="FILE", help="CSV with a header, or NDJSON; - for standard input")
    importing.add_argument(
        "--format", choices=sorted(_FORMATS), default=None, help="the file's form (default: by its name)"
    )
    importing.add_argument(
        "--effective",
        dest="at",
        metavar="T",
        type=_moment,
        default=PERIOD_END,
        help="when changes of those that exist take effect (default: with their next periods)",
    )
    changing.add_argument("id", metavar="ID", help="the subscription")
    changing.add_argument("--plan", metavar="P", required=True, help="the plan that it has from then on")
    changing.add_argument("--at", metavar="T", type=_moment, required=True, help=f"a time, now, or {PERIOD_END}")
    changing.add_argument(
        "--keep-overrides", action="store_true", default=False, help="keep what it has otherwise than its plan"
    )
    ending.add_argument("id", metavar="ID", help="the subscription")
    ending.add_argument("--at", metavar="T", type=_moment, required=True, help=f"a time, now, or {PERIOD_END}")
    for action in (importing, changing):
        action.add_argument(
            "--into-closed",
            action="store_true",
            default=False,
            help="let it reach behind what is invoiced: periods that begin at or after it are rated anew",
        )
    for action in (importing, changing, ending):
        action.add_argument("--dry-run", action="store_true", default=False, help="show it, and change nothing")
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """List, import, change or end. Raises TaximeterError `subscription_unknown`, CatalogError for what can't be."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    if args.action is None:
        return _list(target, args)
    try:
        return _import(target, args) if args.action == "import" else _one(target, args)
    except CatalogError as error:
        if args.json:
            problems = [{"path": one.path, "code": one.code, "message": one.message} for one in error.problems]
            print_json({"applied": False, "problems": problems})
        raise


def _list(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        now = read_now(connection)
        # One more than asked for tells whether there are further ones.
        found = load_subscriptions(connection, args.customer, after=args.after, limit=args.limit + 1)
    shown, more = found[: args.limit], len(found) > args.limit
    if args.json:
        print_json_rows("subscriptions", (_as_json(one, now) for one in shown))
    elif not shown:
        sys.stdout.write("no subscriptions; `taximeter apply` and `taximeter subscriptions import` make them\n")
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("subscription", "customer", "plan", "start", "end", "next change"):
            table.add_column(name, overflow="fold")
        for one in shown:
            coming = next((f"{change.plan} at {time_text(change.at)}" for change in one.changes if change.at > now), "")
            cells = (one.id, one.customer, _at(one, now).plan, time_text(one.start), time_text(one.end), coming)
            table.add_row(*(Text(cell or "") for cell in cells))
        console().print(table)
    if more:
        sys.stderr.write(f"there are more: --after {shown[-1].id}\n")
    return 0


def _at(subscription: Subscription, now: datetime) -> PlanChange:
    """Return what a subscription pays by now, or begins with."""
    first = PlanChange(subscription.start, subscription.plan, subscription.overrides)
    return [first, *(change for change in subscription.changes if change.at <= now)][-1]


def _as_json(subscription: Subscription, now: datetime) -> dict[str, object]:
    current = _at(subscription, now)
    return {
        **subscription_table(subscription, current),
        "end": time_text(subscription.end),
        "changes": [change_table(change) for change in subscription.changes],
    }


def _import(target: Target, args: argparse.Namespace) -> int:
    form = args.format or ("csv" if args.file.lower().endswith(".csv") else "ndjson")
    report = Report()
    with open_events(args.file) as file, ledger_of(target) as connection, progress() as shown:
        task = shown.add_task("importing", total=file.size, note="")
        written = import_subscriptions(
            connection,
            _FORMATS[form](file.lines(), report),
            report,
            effective=_effective(args, read_now(connection)),
            into_closed=args.into_closed,
            dry_run=args.dry_run,
            progress=lambda done: shown.update(task, completed=file.read, note=f"{done:,} subscriptions"),
        )
    if args.json:
        counts = {"added": written.added, "changed": written.changed, "same": written.same}
        print_json({"applied": not args.dry_run, "dry_run": args.dry_run, **counts})
    else:
        sys.stdout.write(_summary(written, dry_run=args.dry_run))
    return 0


def _summary(written: Written, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    return f"{written.added:,} {would}added, {written.changed:,} {would}changed, {written.same:,} as they were\n"


def _one(target: Target, args: argparse.Namespace) -> int:
    """Change or end one subscription and say from when on."""
    with ledger_of(target) as connection:
        at = _effective(args, read_now(connection))
        if args.action == "end":
            done = end_subscription(connection, args.id, at, dry_run=args.dry_run)
        else:
            done = change_subscription(
                connection,
                args.id,
                args.plan,
                at,
                keep_overrides=args.keep_overrides,
                into_closed=args.into_closed,
                dry_run=args.dry_run,
            )
        now = read_now(connection)
    if args.json:
        found = {"applied": not args.dry_run, "dry_run": args.dry_run, "note": done.note or None}
        print_json({**found, "subscription": _as_json(done.subscription, now)})
        return 0
    would = "would " if args.dry_run else ""
    if args.action == "end":
        sys.stdout.write(f"{args.id} {would}end{'' if would else 's'} at {time_text(done.subscription.end)}\n")
    elif done.note:
        sys.stdout.write(f"{args.id} {would}pay{'' if would else 's'} by plan {args.plan} {done.note}\n")
    else:
        sys.stdout.write(f"{args.id} pays by plan {args.plan} already; nothing to change\n")
    return 0


def _effective(args: argparse.Namespace, now: datetime) -> datetime | None:
    """Return the time that is asked for, None for the end of the running period."""
    if getattr(args, "into_closed", False) and args.at == PERIOD_END:
        raise TaximeterError("usage_invalid", "--into-closed: expected a time to reach back to with it")
    if args.at == "now":
        return now.replace(microsecond=0)
    return None if args.at == PERIOD_END else cast("datetime", args.at)


def _moment(text: str) -> datetime | str:
    """Return a time, or one of the words for one; the type of an argument."""
    return text if text in {"now", PERIOD_END} else instant(text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
