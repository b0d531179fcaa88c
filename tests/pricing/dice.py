"""Random plans, subscriptions and usage for the oracle, from a seed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random

from flusher.pricing.due import fits
from flusher.pricing.money import Rounding
from flusher.pricing.period import BillingPeriod, Cycle, Interval, Span, billing_periods
from flusher.pricing.plan import (
    ChargeTime,
    Commitment,
    Discount,
    Entry,
    Fixed,
    FixedPrice,
    Graduated,
    GraduatedPercentage,
    Matrix,
    Package,
    Percentage,
    PerUnit,
    Plan,
    Price,
    RateTier,
    Stairstep,
    Tier,
    UsageModel,
    UsagePrice,
    Volume,
)
from flusher.pricing.rate import Measure, Need, Reading, Run
from tests.pricing.oracle import STEPS, Event, Group

REGIONS, SIZES = ("eu", "us", "za"), ("big", "small")
SHORT = (Interval.DAY, Interval.WEEK)
LENGTHS = {Interval.DAY: 1, Interval.WEEK: 7, Interval.MONTH: 31, Interval.QUARTER: 92, Interval.YEAR: 366}


@dataclass(frozen=True)
class Case:
    """One throw: a plan, a subscription under it, one of its periods, and the events of all time."""

    plan: Plan
    span: Span
    end: datetime
    billing: BillingPeriod
    number: int
    events: tuple[Event, ...]
    committed: Decimal


class Dice:
    """Throws cases; the same seed throws the same."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def case(self) -> Case:
        """Throw a whole case."""
        start = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(seconds=self.random.randrange(600 * 86_400))
        interval = self.random.choice(list(Interval))
        end = start + timedelta(seconds=self.random.randrange(1, 4 * LENGTHS[interval] * 86_400))
        plan, span = self.plan(interval), Span(start, end, start)
        periods = [*billing_periods(plan.cycle, span, end)]
        number = self.random.randrange(len(periods))
        return Case(
            plan, span, end, periods[number], number, self.events(start, end, periods[number]), self.decimal(300, 0)
        )

    def plan(self, interval: Interval) -> Plan:
        """Throw a plan of up to three prices with everything around them."""
        low, high = self.limits(400)
        longer = [one for one in Interval if fits(one, interval) and LENGTHS[one] >= LENGTHS[interval]]
        commitment = Commitment(self.money(900), self.random.choice(longer)) if self.chance(4) else None
        return Plan(
            "pro",
            self.random.choice(sorted(STEPS)),
            tuple(self.price(f"price {number}", interval) for number in range(self.random.randint(1, 3))),
            Cycle(interval),
            self.random.choice(list(Rounding)),
            low,
            high,
            tuple(self.discount(f"off {number}") for number in range(self.random.choice((0, 0, 1, 2)))),
            commitment,
        )

    def price(self, name: str, plans: Interval) -> Price:
        """Throw a price, of any model and with anything around it."""
        # A price by the day over a year is a great deal of work for nothing new
        fitting = [one for one in Interval if fits(one, plans) and (one not in SHORT or LENGTHS[plans] <= 31)]
        interval = self.random.choice(fitting) if self.chance(3) else None
        if self.chance(4):
            return FixedPrice(name, Fixed(self.money(100), self.random.choice(list(ChargeTime))), interval)
        model = self.model()
        per_event = isinstance(model, Percentage) and model.is_per_event
        free_units = Decimal(0) if per_event or self.chance(2) else self.decimal(200, 3)
        low, high = self.limits(100)
        meter = self.random.choice(("calls", "storage"))
        return UsagePrice(name, meter, model, free_units, self.chance(4), low, high, interval, self.chance(2))

    def model(self) -> UsageModel:
        """Throw a model."""
        match self.random.randrange(8):
            case 0:
                return PerUnit(self.unit_price())
            case 1:
                return Graduated(self.tiers())
            case 2:
                return Volume(self.tiers())
            case 3:
                return Stairstep(tuple(Tier(end, flat_fee=self.money(50)) for end in self.ends()))
            case 4:
                return Package(self.decimal(50, 3) + Decimal("0.001"), self.money(20))
            case 5:
                return GraduatedPercentage(tuple(RateTier(end, self.rate(), self.money(9)) for end in self.ends()))
            case 6:
                low, high = self.limits(5)
                return Percentage(self.rate(), self.money(1), self.random.choice((0, 0, 1, 3)), low, high)
            case _:
                return Matrix(self.entries())

    def entries(self) -> tuple[Entry, ...]:
        """Throw the entries of a matrix, each of which some group reaches; the last may be for all others."""
        matches: list[Group] = [(("region", region),) for region in REGIONS]
        matches += [(("region", region), ("size", size)) for region in REGIONS for size in SIZES]
        chosen = sorted(self.random.sample(matches, self.random.randint(1, 5)), key=len, reverse=True)
        return tuple(Entry(match, self.unit_price()) for match in [*chosen, *([()] if self.chance(2) else [])])

    def ends(self) -> list[Decimal | None]:
        """Throw the ends of tiers."""
        return [*sorted({self.decimal(300, 3) + Decimal("0.001") for _ in range(self.random.randint(0, 4))}), None]

    def tiers(self) -> tuple[Tier, ...]:
        """Throw tiers of units."""
        return tuple(Tier(end, self.unit_price(), self.money(9)) for end in self.ends())

    def discount(self, name: str) -> Discount:
        """Throw a discount."""
        duration = self.random.choice((None, 1, 2))
        if self.chance(2):
            return Discount(name, percent=min(Decimal(100), self.decimal(120, 4)), duration=duration)
        return Discount(name, amount=self.money(100), duration=duration)

    def events(self, start: datetime, end: datetime, billing: BillingPeriod) -> tuple[Event, ...]:
        """Throw events before, in and after the subscription, most of them in the period; some take back."""
        found = []
        for _ in range(self.random.randrange(25)):
            low, high = (billing.period.start, billing.period.end) if self.chance(2) else (start, end)
            length_us = (high - low) // timedelta(microseconds=1)
            at = low + timedelta(microseconds=self.random.choice((0, self.random.randrange(length_us), length_us)))
            units = self.decimal(90, self.random.choice((0, 2, 9))) * (-1 if self.chance(9) else 1)
            group = (("region", self.random.choice(REGIONS)), ("size", self.random.choice(SIZES)))
            found.append(Event(self.random.choice(("calls", "storage")), at, group, Fraction(units)))
        return tuple(sorted(found, key=lambda event: event.at))

    def limits(self, below: int) -> tuple[Decimal | None, Decimal | None]:
        """Throw a minimum and a maximum, most of the time neither."""
        low, high = sorted((self.money(below), self.money(below)))
        return low if self.chance(4) else None, high if self.chance(4) else None

    def chance(self, of: int) -> bool:
        """Throw true once in so many times."""
        return self.random.randrange(of) == 0

    def decimal(self, below: int, places: int) -> Decimal:
        """Throw a decimal of 0 or more."""
        return Decimal(self.random.randrange(below * 10**places)).scaleb(-places)

    def money(self, below: int) -> Decimal:
        """Throw an amount; often in cents, sometimes with many digits or none."""
        return self.decimal(below, self.random.choice((0, 2, 2, 2, 3, 12)))

    def unit_price(self) -> Decimal:
        """Throw a price of a unit."""
        return self.decimal(10, self.random.choice((0, 2, 3, 12)))

    def rate(self) -> Decimal:
        """Throw a rate in percent."""
        return self.decimal(200, self.random.choice((0, 1, 10)))


def readings(case: Case, wanted: tuple[Need, ...]) -> dict[Need, Reading]:
    """What the events of a case show for each need: measures by group, the units of single events where they count."""
    found = {}
    for need in wanted:
        groups: dict[Group, list[Event]] = {}
        for event in case.events:
            if event.meter == need.meter and event.at in need.period:
                groups.setdefault(event.group if need.per_group else (), []).append(event)
        measures = tuple(_measure(group, events, need) for group, events in groups.items())
        found[need] = Reading(measures, sum(measure.events for measure in measures))
    return found


def _measure(group: Group, events: list[Event], need: Need) -> Measure:
    units = [Decimal(event.units.numerator) / event.units.denominator for event in events]
    runs = tuple(Run(one, 1) for one in units) if need.free_events is not None else ()
    return Measure(sum(units, Decimal(0)), group, len(events), runs)
