"""`taximeter credits`: what customers have prepaid, which invoices drew from it, granting more and taking it back."""

import argparse
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Final

import psycopg
from psycopg.rows import TupleRow
from rich import box
from rich.table import Table
from rich.text import Text

from flusher.catalog.reader import AMOUNT_FORM, text_fault
from flusher.cli.actions import add_actions, add_reason, ledger_of, number, time_text
from flusher.cli.instant import instant
from flusher.cli.output import console, print_json
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.invoicing.credit_store import Standing, grant, list_standings, page_customers, void_grant
from flusher.invoicing.credits import Grant, GrantKind, is_usable
from flusher.invoicing.store import read_clock
from flusher.pricing.line import rfc3339
from flusher.pricing.money import EXACT, UnknownCurrencyError, currency, plain
from sidecar.contract.codes import TaximeterError

LIMIT_DEFAULT: Final = 100
PRIORITY_DEFAULT: Final = 100
_PRIORITY_MAX: Final = 1_000_000
_ACTIONS: Final = {
    "grant": "give a customer credit; under an id it is safe to repeat",
    "void": "take back what is left of a grant; what invoices drew stays drawn",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, `grant` with what is granted, and `void` with the grant and the reason."""
    parser.add_argument("--customer", metavar="C", help="only this customer's")
    parser.add_argument(
        "--limit", metavar="N", type=number, default=LIMIT_DEFAULT, help="of at most N customers (default: %(default)s)"
    )
    parser.add_argument("--after", metavar="C", help="of those that follow this customer in the list")
    _add_common(parser)
    give, take = add_actions(parser, _ACTIONS)
    _add_terms(give)
    take.add_argument("grant", metavar="ID", help="the grant, as the list names it")
    add_reason(take, required=True, text="why; kept with the grant")
    for action in (give, take):
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """List, grant or take back. Raises TaximeterError: usage_invalid, grant_differs, grant_unknown, already_decided."""
    target = find_target(args)
    target.need_database()
    target.announce("database")
    if args.action is None:
        return _list(target, args)
    return _grant(target, args) if args.action == "grant" else _void(target, args)


def _list(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        # One more than asked for tells whether there are further ones.
        customers = (
            [args.customer] if args.customer else page_customers(connection, limit=args.limit + 1, after=args.after)
        )
        shown = customers[: args.limit]
        after = shown[-1] if len(customers) > len(shown) else None
        found = list_standings(connection, shown)
        now = read_clock(connection).now
    if args.json:
        print_json({**_report(found, now), "after": after})
        return 0
    if not found:
        sys.stdout.write("no credit was granted; `taximeter credits grant` grants some\n")
        return 0
    console().print(_balances(found, now), _table(found, now))
    if after is not None:
        sys.stderr.write(f"there are more: --after {after}\n")
    return 0


def _grant(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        wanted = _wanted(args, read_clock(connection).now)
        if not grant(connection, [wanted]):
            _same_as_stored(connection, wanted, given_effective=args.effective)
        (stored,) = list_standings(connection, grant_ids=[wanted.id])
        now = read_clock(connection).now
    if args.json:
        print_json({"grant": _as_json(stored, now)})
    else:
        amount = f"{plain(stored.grant.amount)} {stored.grant.currency.upper()}"
        sys.stdout.write(f"{stored.grant.id}: {amount} for {stored.grant.customer}\n")
    return 0


def _void(target: Target, args: argparse.Namespace) -> int:
    with ledger_of(target) as connection:
        void_grant(connection, args.grant, args.reason)
        (stored,) = list_standings(connection, grant_ids=[args.grant])
        now = read_clock(connection).now
    if args.json:
        print_json({"grant": _as_json(stored, now)})
    else:
        left = f"{plain(stored.voided)} {stored.grant.currency.upper()}"
        sys.stdout.write(f"{left} of {stored.grant.id} are taken back: {args.reason}\n")
    return 0


def _wanted(args: argparse.Namespace, now: datetime) -> Grant:
    """Return the grant that the arguments mean. Raises TaximeterError `usage_invalid` for what nobody could draw."""
    effective = args.effective or now
    if args.expires is not None and args.expires <= effective:
        raise TaximeterError(
            "usage_invalid", f"--expires: expected a time after {rfc3339(effective)}, got {rfc3339(args.expires)}"
        )
    step = currency(args.currency).step
    with localcontext(EXACT):
        if not args.amount or args.amount % step:
            raise TaximeterError(
                "usage_invalid",
                f"--amount: expected a multiple of {step} {args.currency.upper()}, got {plain(args.amount)}",
            )
    return Grant(
        id=args.id or f"grant_{secrets.token_hex(12)}",
        customer=args.customer,
        currency=args.currency,
        name=args.name,
        kind=GrantKind.PREPAID,
        amount=args.amount,
        remaining=args.amount,
        priority=args.priority,
        effective_at=effective,
        granted_at=now,
        expires_at=args.expires,
        cost_basis=args.cost_basis,
    )


def _same_as_stored(
    connection: psycopg.Connection[TupleRow], wanted: Grant, *, given_effective: datetime | None
) -> None:
    """Raise TaximeterError `grant_differs` unless the grant that is stored under the id is the one that is wanted."""
    (stored,) = list_standings(connection, grant_ids=[wanted.id])
    found = stored.grant
    # What was granted "now" is in effect since then; a repeat means the same.
    same = replace(
        wanted,
        remaining=found.remaining,
        granted_at=found.granted_at,
        effective_at=given_effective or found.effective_at,
    )
    if same != found:
        raise TaximeterError(
            "grant_differs",
            f"grant {found.id} is {plain(found.amount)} {found.currency.upper()} for {found.customer} ({found.name}) "
            "on other terms; nothing was changed; take another --id",
        )


def _report(found: Sequence[Standing], now: datetime) -> dict[str, object]:
    balances = [
        {"customer": customer, "currency": code, "balance": plain(balance)}
        for (customer, code), balance in _sums(found, now).items()
    ]
    return {"as_of": rfc3339(now), "balances": balances, "grants": [_as_json(standing, now) for standing in found]}


def _as_json(standing: Standing, now: datetime) -> dict[str, object]:
    found = standing.grant
    return {
        "id": found.id,
        "customer": found.customer,
        "currency": found.currency,
        "name": found.name,
        "kind": found.kind.value,
        "state": _state(standing, now),
        "amount": plain(found.amount),
        "remaining": plain(found.remaining),
        "voided": plain(standing.voided),
        "priority": found.priority,
        "cost_basis": plain(found.cost_basis),
        "effective_at": rfc3339(found.effective_at),
        "expires_at": None if found.expires_at is None else rfc3339(found.expires_at),
        "granted_at": rfc3339(found.granted_at),
        "voided_at": None if standing.voided_at is None else rfc3339(standing.voided_at),
        "void_reason": standing.void_reason,
        "draws": [{"invoice": drawn.invoice, "amount": plain(drawn.amount)} for drawn in standing.draws],
    }


def _state(standing: Standing, now: datetime) -> str:
    found = standing.grant
    if standing.voided_at is not None:
        return "void"
    if not found.remaining:
        return "used"
    if is_usable(found, now):
        return "usable"
    return "later" if now < found.effective_at else "expired"


def _sums(found: Iterable[Standing], now: datetime) -> dict[tuple[str, str], Decimal]:
    """Return what can be used now, by customer and currency; an entry for each that has a grant."""
    sums: dict[tuple[str, str], Decimal] = {}
    with localcontext(EXACT):
        for standing in found:
            key = (standing.grant.customer, standing.grant.currency)
            usable = standing.grant.remaining if is_usable(standing.grant, now) else Decimal(0)
            sums[key] = sums.get(key, Decimal(0)) + usable
    return sums


def _balances(found: Iterable[Standing], now: datetime) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("customer", overflow="fold")
    table.add_column("balance", justify="right")
    for (customer, code), balance in _sums(found, now).items():
        table.add_row(Text(customer), f"{plain(balance)} {code.upper()}")
    return table


def _table(found: Iterable[Standing], now: datetime) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("customer", "grant", "name", "state", "amount", "remaining", "priority", "expires", "drawn by"):
        right = name in {"amount", "remaining", "priority"}
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for standing in found:
        one = standing.grant
        drawn = "\n".join(f"{drawn.invoice} {plain(drawn.amount)}" for drawn in standing.draws)
        cells = (one.customer, one.id, one.name, _state(standing, now), f"{plain(one.amount)} {one.currency.upper()}")
        rest = (plain(one.remaining), str(one.priority), time_text(one.expires_at) or "never", drawn)
        table.add_row(*(Text(cell) for cell in (*cells, *rest)))
    return table


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--customer", metavar="C", type=_text, required=True, help="who gets it")
    parser.add_argument("--amount", metavar="A", type=_amount, required=True, help='in major units, like "100.00"')
    parser.add_argument("--currency", metavar="CODE", type=_currency, required=True, help='like "usd"')
    parser.add_argument("--name", metavar="N", type=_text, required=True, help="what invoices call it")
    parser.add_argument(
        "--priority",
        metavar="P",
        type=_priority,
        default=PRIORITY_DEFAULT,
        help="the lowest is drawn first (default: %(default)s)",
    )
    parser.add_argument("--effective", metavar="T", type=instant, default=None, help="from when on (default: now)")
    parser.add_argument("--expires", metavar="T", type=instant, default=None, help="until when (default: for ever)")
    parser.add_argument(
        "--cost-basis",
        metavar="A",
        type=_amount,
        default=Decimal(1),
        help="what was paid for a major unit of it (default: %(default)s)",
    )
    parser.add_argument("--id", metavar="ID", type=_text, default=None, help="repeats under the id grant nothing more")


def _text(text: str) -> str:
    if fault := text_fault(text):
        raise argparse.ArgumentTypeError(f"{fault}, got {text[:80]!r}")
    return text


def _amount(text: str) -> Decimal:
    if not AMOUNT_FORM.fullmatch(text):
        raise argparse.ArgumentTypeError(f'expected an amount in major units, like "100.00", got {text[:80]!r}')
    return Decimal(text)


def _currency(text: str) -> str:
    try:
        return currency(text).code
    except UnknownCurrencyError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _priority(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= _PRIORITY_MAX and len(text) <= 7):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {_PRIORITY_MAX}, got {text[:80]!r}")
    return int(text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
