"""The lines of an invoice as Stripe gets them: one each, or, where they are too many, sums of lines. Pure.

The same invoice always comes to the same lines. A sum says which lines of ours it stands for; the detail stays here.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flusher.invoicing.invoice import Invoice, InvoiceLine
from flusher.pricing.money import currency, to_stripe
from flusher.pricing.period import Period

LINES_MAX: Final = 250
"""Items that an invoice can have at Stripe."""


@dataclass(frozen=True, slots=True)
class StripeLine:
    """A line at Stripe: `amount` is Stripe's integer.

    `places` are the lines of ours that it sums up, by their place in the invoice, from 1 ("3-120, 140"); empty where it
    is a single one. `id` is that line's, or one made of the ids of all of them.
    """

    id: str
    amount: int
    description: str
    period: Period
    places: str = ""


_Numbered = tuple[int, InvoiceLine]
_Key = Callable[[InvoiceLine], tuple[object, ...]]

# What lines have in common that become one: the first rule that leaves few enough is taken. There are seven kinds.
_RULES: Final[Sequence[_Key]] = (
    lambda line: (line.kind, line.price, line.meter, line.period, line.tier),
    lambda line: (line.kind, line.price, line.meter, line.period),
    lambda line: (line.kind, line.price, line.meter),
    lambda line: (line.kind,),
)


def stripe_lines(invoice: Invoice, most: int = LINES_MAX) -> tuple[StripeLine, ...]:
    """Return what an invoice's lines become at Stripe: at most `most` (7 or more), with the same sum."""
    numbered = list(enumerate(invoice.lines, 1))
    groups = [[one] for one in numbered]
    rules = iter(_RULES)
    while len(groups) > most:
        groups = _grouped(numbered, next(rules))
    return tuple(_single(invoice, *group) if len(group) == 1 else _sum(invoice, group) for group in groups)


def _grouped(lines: Iterable[_Numbered], key: _Key) -> list[list[_Numbered]]:
    """Return the lines by what they have in common, in order of each group's first line."""
    found: dict[tuple[object, ...], list[_Numbered]] = {}
    for one in lines:
        found.setdefault(key(one[1]), []).append(one)
    return list(found.values())


def _single(invoice: Invoice, one: _Numbered) -> StripeLine:
    _, line = one
    return StripeLine(line.id, _amount(invoice, line), line.description, line.period)


def _sum(invoice: Invoice, group: Sequence[_Numbered]) -> StripeLine:
    lines = [line for _, line in group]
    prices = {line.price for line in lines}
    label = prices.pop() if len(prices) == 1 else lines[0].kind
    return StripeLine(
        id=f"roll_{hashlib.sha256(' '.join(line.id for line in lines).encode()).hexdigest()[:24]}",
        amount=sum(_amount(invoice, line) for line in lines),
        description=f"{label}: {len(lines)} lines in one, see invoice {invoice.id}",
        period=Period(min(line.period.start for line in lines), max(line.period.end for line in lines)),
        places=", ".join(_ranges([place for place, _ in group])),
    )


def _ranges(places: Sequence[int]) -> Iterator[str]:
    """Yield ascending places as ranges: 1, 2, 3, 7 are "1-3" and "7"."""
    start = last = places[0]
    for place in [*places[1:], 0]:
        if place != last + 1:
            yield str(start) if start == last else f"{start}-{last}"
            start = place
        last = place


def _amount(invoice: Invoice, line: InvoiceLine) -> int:
    return to_stripe(line.amount, currency(invoice.currency))
