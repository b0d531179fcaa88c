"""What events, or voids, would do to invoices: tried out in a transaction that is taken back, and shown."""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from flusher.backfill import count_now
from flusher.cli.invoice import find_late_limit, find_window
from flusher.cli.output import console, print_json
from flusher.invoicing.effect import USERS_MAX, Change, effect_on_invoices
from flusher.invoicing.invoice import period_json
from flusher.invoicing.late import Held
from flusher.invoicing.run import Options
from flusher.law import Outcome
from flusher.law import Tally as Outcomes
from flusher.ledger import Ledger
from flusher.pricing.money import currency, format_amount
from flusher.pricing.period import Period
from flusher.sending.client import Problem, Tally
from flusher.sending.records import Batch
from sidecar.contract.codes import TaximeterError
from sidecar.contract.meters import decode_revision
from sidecar.reading import Reading, Terms, read

INVOICES_SHOWN_MAX: Final = 50
_MEDIA_TYPE: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Trial:
    """What would become of events, and of the invoices that they touch; `refused` has those that no sidecar takes.

    `held` has closed periods of which the difference is held, as it comes later than the late limit.
    """

    outcomes: Outcomes
    refused: Tally
    changes: list[Change]
    held: list[Held]

    def differences(self) -> list[tuple[str, Decimal, Decimal]]:
        """Return by how much all invoices of each currency differ, and how much of that is credit."""
        nothing = (Decimal(0), Decimal(0))
        found: dict[str, tuple[Decimal, Decimal]] = {}
        for change in self.changes:
            total, credit = found.get(change.invoice.currency, nothing)
            found[change.invoice.currency] = (total + change.difference, credit + change.credit)
        return [(code, *amounts) for code, amounts in sorted(found.items())]


def terms_of(ledger: Ledger) -> Terms:
    """Return what a sidecar would read events under now."""
    with ledger.transaction():
        known, revisions = ledger.read(), ledger.revisions()
    number = max(revisions)
    revision = decode_revision(number, revisions[number])
    return Terms(time.time_ns() // 1000, known.told_floor_us, revision, known.shards, os.urandom)


def read_batch(batch: Batch, terms: Terms, *, voids: bool = False) -> Reading:
    """Return a batch as a sidecar would read it."""
    return read(_MEDIA_TYPE, b"\n".join(batch.events), terms, voids=voids)


def try_out(ledger: Ledger, batches: Iterable[Batch], refused: Tally, *, voids: bool = False) -> Trial:
    """Return what events, or `voids`, would do. Nothing is kept; drains wait meanwhile.

    `refused` counts what the batches leave out already. Raises TryAgainError when Postgres is gone or busy.
    """
    terms, outcomes = terms_of(ledger), Outcomes()

    def change() -> set[str]:
        users: set[str] = set()
        for batch in batches:
            reading = read_batch(batch, terms, voids=voids)
            for one in reading.rejections:
                refused.refuse(Problem(batch.lines[one.index], one.id, one.code, one.message))
            for shard, share in reading.shares.items():
                if len(users) <= USERS_MAX:
                    users.update(content.user_id for content in share.contents)
                count_now(ledger, share.batch(shard, terms.revision.number, terms.now_us, terms.now_us), outcomes)
        return users

    options = Options(window=find_window(None, os.environ), late_limit=find_late_limit(None, os.environ))
    effect = effect_on_invoices(ledger, change, options)
    return Trial(outcomes, refused, effect.invoices, effect.held)


def confirm(trial: Trial, what: str) -> None:
    """Show a trial and ask. Raises TaximeterError `not_confirmed` unless somebody says yes."""
    sys.stderr.write(_text(trial))
    if sys.stdin.isatty():
        sys.stderr.write(f"{what}? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise TaximeterError("not_confirmed", "nothing was done; --yes does it without asking")


def report(trial: Trial, name: str, *, as_json: bool) -> int:
    """Print what would happen; return 1 when an event would be refused or in conflict."""
    if as_json:
        print_json(_json(trial))
    else:
        sys.stdout.write(f"{name}, tried out; nothing was done\n")
        sys.stdout.write(_text(trial))
        console().print(_table(trial))
    return 1 if trial.refused.rejected or trial.outcomes.events[Outcome.CONFLICT] else 0


def _text(trial: Trial) -> str:
    lines = [f"{count:>12,} {outcome.value}" for outcome, count in trial.outcomes.events.items() if count]
    if trial.refused.rejected:
        lines.append(f"{trial.refused.rejected:>12,} rejected")
    lines += [f"line {one.line}: {one.code}: {one.message}" for one in trial.refused.problems[:10]]
    lines.append(f"{len(trial.changes):,} invoices change" if trial.changes else "no invoice changes")
    for code, difference, credit in trial.differences():
        in_credit = f", with {_signed(credit, code)} in credit" if credit else ""
        lines.append(f"{_signed(difference, code)} {code.upper()} in all{in_credit}")
    for one in trial.held[:INVOICES_SHOWN_MAX]:
        amount = f"{_signed(one.amount, one.currency)} {one.currency.upper()}"
        lines.append(f"held as late, see `taximeter late`: {_period(one.period)} of {one.subscription}: {amount}")
    return "\n".join(lines) + "\n"


def _period(period: Period) -> str:
    shown = period_json(period)
    return f"{shown['from']} to {shown['to']}"


def _table(trial: Trial) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("customer", "subscription", "period"):
        table.add_column(name, overflow="fold")
    for name in ("now", "then", "difference", "of that credit"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in trial.changes[:INVOICES_SHOWN_MAX]:
        invoice, code = change.invoice, change.invoice.currency
        money = [format_amount(amount, currency(code)) for amount in (change.old, change.new)]
        cells = (invoice.customer, invoice.subscription, _period(invoice.period))
        credit = _signed(change.credit, code) if change.credit else ""
        table.add_row(*map(Text, (*cells, *money, f"{_signed(change.difference, code)} {code.upper()}", credit)))
    return table


def _signed(amount: Decimal, code: str) -> str:
    text = format_amount(amount, currency(code))
    return f"+{text}" if amount > 0 else text


def _json(trial: Trial) -> dict[str, object]:
    outcomes = {outcome.value: count for outcome, count in trial.outcomes.events.items()}
    problems = [
        {"line": one.line, "id": one.id, "code": one.code, "message": one.message} for one in trial.refused.problems
    ]
    return {
        "events": {**outcomes, "rejected": trial.refused.rejected},
        "problems": problems,
        "invoices": [_change_json(change) for change in trial.changes],
        "held": [_held_json(one) for one in trial.held],
        "differences": [
            {
                "currency": code,
                "difference": format_amount(difference, currency(code)),
                "credit": format_amount(credit, currency(code)),
            }
            for code, difference, credit in trial.differences()
        ],
    }


def _held_json(one: Held) -> dict[str, object]:
    return {
        "customer": one.customer,
        "subscription": one.subscription,
        "period": period_json(one.period),
        "currency": one.currency,
        "difference": format_amount(one.amount, currency(one.currency)),
    }


def _change_json(change: Change) -> dict[str, object]:
    invoice, money = change.invoice, currency(change.invoice.currency)
    return {
        "customer": invoice.customer,
        "subscription": invoice.subscription,
        "invoice": invoice.id,
        "kind": invoice.kind.value,
        "period": period_json(invoice.period),
        "currency": invoice.currency,
        "old": format_amount(change.old, money),
        "new": format_amount(change.new, money),
        "difference": format_amount(change.difference, money),
        "credit": format_amount(change.credit, money),
    }
