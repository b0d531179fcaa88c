"""Model `percentage`: units are money, and a part of it is due; with a fee, free events and limits for each event.

The meaning is that of interface.md, for which https://getlago.com/docs/guide/plans/charges/charge-models/percentage was
the model. At a quantity of 0 fees are not due either, as for every usage model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Part
from flusher.pricing.measure import Run
from flusher.pricing.money import grouped, plain
from flusher.pricing.tiers import ZERO


@dataclass(frozen=True, slots=True)
class Percentage:
    """`rate` percent of the money, and `fee_per_event` for each event.

    The first `free_events`, in the order of time and key, pay nothing. What another event pays, rate and fee together,
    is brought to `minimum_per_event` or `maximum_per_event`. Amounts are in major units of the plan's currency.
    """

    rate: Decimal
    fee_per_event: Decimal = ZERO
    free_events: int = 0
    minimum_per_event: Decimal | None = None
    maximum_per_event: Decimal | None = None

    @property
    def is_per_event(self) -> bool:
        """Whether single events decide: without free events and limits, sum and count are enough."""
        return self.free_events > 0 or self.minimum_per_event is not None or self.maximum_per_event is not None

    def parts(self, quantity: Decimal, events: int, runs: Iterable[Run] = ()) -> tuple[Part, ...]:
        """Return one part for all events that aren't free; `quantity` is money, above 0.

        `runs` are read where `is_per_event`, and make up `events`; raises `ValueError` where they don't. What all
        events pay together is never below 0. Nothing is due when all events are free.
        """
        if not self.is_per_event:
            return (self._part(quantity, events, quantity * fraction(self.rate) + events * self.fee_per_event),)
        paying = self._paying(runs, events)
        if not paying:
            return ()
        paid = sum((run.units * run.events for run in paying), ZERO)
        amount = sum((self._of_one(run.units) * run.events for run in paying), ZERO)
        return (self._part(paid, sum(run.events for run in paying), max(ZERO, amount)),)

    def _part(self, paid: Decimal, events: int, amount: Decimal) -> Part:
        """Return the part for `events` events that pay, of `paid` together."""
        bare = paid * fraction(self.rate) + events * self.fee_per_event
        fees = f" + {events:,} x {plain(self.fee_per_event)}" if self.fee_per_event else ""
        working = f"{grouped(self.rate)} % of {grouped(paid)}{fees} = {grouped(bare)}"
        if amount != bare:
            working += f"; with the limits of each event {grouped(amount)}"
        return Part(paid, fraction(self.rate), amount, self._label(paid, events), working=working)

    def _paying(self, runs: Iterable[Run], events: int) -> list[Run]:
        """Return the runs behind the free events."""
        free, seen = self.free_events, 0
        paying = []
        for run in runs:
            taken = min(free, run.events)
            free -= taken
            seen += run.events
            if run.events > taken:
                paying.append(Run(run.units, run.events - taken))
        if seen != events:
            raise ValueError(f"expected the units of each of {events} events, got those of {seen}")
        return paying

    def _of_one(self, units: Decimal) -> Decimal:
        """Return what one event pays."""
        amount = units * fraction(self.rate) + self.fee_per_event
        if self.minimum_per_event is not None:
            amount = max(amount, self.minimum_per_event)
        return amount if self.maximum_per_event is None else min(amount, self.maximum_per_event)

    def _label(self, paid: Decimal, events: int) -> str:
        """Return what is paid for: "1.2 % of 850 in 2 events, plus 0.3, at least 1, at most 5 for each"."""
        text = f"{grouped(self.rate)} % of {grouped(paid)}"
        each = [f"plus {plain(self.fee_per_event)}"] if self.fee_per_event else []
        if self.minimum_per_event is not None:
            each.append(f"at least {plain(self.minimum_per_event)}")
        if self.maximum_per_event is not None:
            each.append(f"at most {plain(self.maximum_per_event)}")
        if each or self.free_events:
            text += f" in {count(events)}"
        if each:
            text += f", {', '.join(each)} for each"
        return text + (f", after {count(self.free_events)} free" if self.free_events else "")


def fraction(rate: Decimal) -> Decimal:
    """Return a rate in percent as what a unit of money costs: 1.2 is 0.012."""
    return rate.scaleb(-2)


def count(events: int) -> str:
    """Return a number of events with its noun."""
    return "1 event" if events == 1 else f"{events:,} events"
