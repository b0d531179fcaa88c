"""`taximeter credit`: credit notes, which take something off a final invoice; `taximeter credits` is prepaid credit."""

import argparse
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.catalog.reader import AMOUNT_FORM
from flusher.cli.actions import add_actions, add_reason, ledger_of, number
from flusher.cli.correcting import Connection, add_live, corrector_for
from flusher.cli.output import console, print_json
from flusher.cli.target import Target, add_target_arguments, find_target
from flusher.invoicing.credit_notes import (
    CreditNote,
    NoteStatus,
    PaidAs,
    Wanted,
    discard_note,
    draft_note,
    load_note,
    note_json,
    page_notes,
)
from flusher.pricing.money import currency, format_amount
from sidecar.contract.codes import TaximeterError

LIMIT_DEFAULT: Final = 50
_ACTIONS: Final = {
    "note": "draft a credit note: take an amount, a line or a part of a line off a final invoice",
    "confirm": "issue a drafted credit note, at Stripe too if its invoice is there; safe to repeat",
    "discard": "discard a drafted credit note",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the list, `note` with what is taken off, `confirm` and `discard`."""
    parser.description = (
        "List the credit notes, newest first. A credit note takes something off an invoice that is final; what "
        "customers have prepaid is `taximeter credits`."
    )
    parser.add_argument("--invoice", metavar="ID", help="only this invoice's")
    parser.add_argument("--status", choices=[status.value for status in NoteStatus], help="only those")
    parser.add_argument(
        "--limit", metavar="N", type=number, default=LIMIT_DEFAULT, help="at most N (default: %(default)s)"
    )
    parser.add_argument("--after", metavar="ID", help="those that follow this credit note in the list")
    _add_common(parser)
    note, confirm, discard = add_actions(parser, _ACTIONS)
    note.add_argument("of", metavar="INVOICE", help="the invoice")
    what = note.add_mutually_exclusive_group(required=True)
    what.add_argument("--amount", metavar="A", type=_decimal, default=None, help='in major units, like "10.00"')
    what.add_argument(
        "--line", metavar="L", default=None, help="a line of the invoice, whole unless --quantity is given"
    )
    note.add_argument("--quantity", metavar="Q", type=_decimal, default=None, help="so much of the line's quantity")
    note.add_argument(
        "--paid-as",
        choices=[way.value for way in PaidAs],
        default=PaidAs.BALANCE.value,
        help="how the part that is paid already is given back: as balance for Stripe's next invoices, as a refund, or "
        "outside of Stripe (default: %(default)s)",
    )
    add_reason(note, required=True, text="why; the customer reads it on the credit note")
    for action in (confirm, discard):
        action.add_argument("note", metavar="ID", help="the credit note, as the list names it")
    add_live(confirm)
    for action in (note, confirm, discard):
        _add_common(action)


def run(args: argparse.Namespace) -> int:
    """List, draft, issue or discard. Raises TaximeterError."""
    if args.action == "note" and args.quantity is not None and args.line is None:
        raise TaximeterError("usage_invalid", "--quantity: expected with --line, of which it is a part")
    target = find_target(args)
    target.need_database()
    target.announce("database")
    if args.action is None:
        return _list(target, args)
    if args.action == "confirm":
        found = _confirm(target, args)
    else:
        with ledger_of(target) as connection:
            found = _draft(connection, args) if args.action == "note" else discard_note(connection, args.note)
    if args.json:
        print_json({"credit_note": note_json(found)})
    else:
        sys.stdout.write(f"{found.id}: {_money(found)} off {found.invoice}, {found.status}\n")
    if not args.json and found.status is NoteStatus.DRAFT:
        sys.stderr.write(f"`taximeter credit confirm {found.id}` issues it\n")
    return 0


def _draft(connection: Connection, args: argparse.Namespace) -> CreditNote:
    wanted = Wanted(args.amount, args.line, args.quantity, PaidAs(args.paid_as))
    return draft_note(connection, args.of, wanted, args.reason)


def _confirm(target: Target, args: argparse.Namespace) -> CreditNote:
    with ledger_of(target) as connection:
        found = load_note(connection, args.note)
        what = f"take {_money(found)} off {found.invoice}"
        with corrector_for(connection, args, what) as corrector:
            return corrector.confirm(args.note)


def _list(target: Target, args: argparse.Namespace) -> int:
    status = None if args.status is None else NoteStatus(args.status)
    with ledger_of(target) as connection:
        # One more than asked for tells whether there are further ones.
        found = page_notes(connection, limit=args.limit + 1, invoice=args.invoice, status=status, after=args.after)
    shown = found[: args.limit]
    after = shown[-1].id if len(found) > len(shown) else None
    if args.json:
        print_json({"credit_notes": [note_json(note) for note in shown], "after": after})
        return 0
    if not shown:
        sys.stdout.write("no credit notes; `taximeter credit note INVOICE` drafts one\n")
        return 0
    console().print(_table(shown))
    if after is not None:
        sys.stderr.write(f"there are more: --after {after}\n")
    return 0


def _table(notes: Sequence[CreditNote]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("credit note", "invoice", "customer", "amount", "status", "reason"):
        table.add_column(name, justify="right" if name == "amount" else "left", overflow="fold")
    for note in notes:
        why = note.reason if note.problem is None else f"{note.reason} (Stripe: {note.problem})"
        cells = (note.id, note.invoice, note.customer, _money(note), note.status.value, why)
        table.add_row(*map(Text, cells))
    return table


def _money(note: CreditNote) -> str:
    return f"{format_amount(note.amount, currency(note.currency))} {note.currency.upper()}"


def _decimal(text: str) -> Decimal:
    if not AMOUNT_FORM.fullmatch(text):
        raise argparse.ArgumentTypeError(f'expected a decimal number, like "10.00", got {text[:80]!r}')
    return Decimal(text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    add_target_arguments(parser, "database")
