"""Writes parts as lines: rounded once, with an id, a description and the working that support reads."""

from dataclasses import dataclass
from decimal import Decimal

from flusher.pricing.line import Dimensions, Line, LineKind, Part, line_id
from flusher.pricing.money import Currency, Rounding, currency, format_amount, plain, round_amount
from flusher.pricing.period import Period
from flusher.pricing.plan import Plan


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the lines of one plan; `scope` is what makes their ids unique beyond one call."""

    money: Currency
    rounding: Rounding
    scope: str
    how: str
    """How amounts are rounded, for the working: "rounded half up to 0.01"."""

    @classmethod
    def of(cls, plan: Plan, scope: str) -> "Writer":
        """Return the writer for a plan's currency and rounding."""
        money = currency(plan.currency)
        how = f"rounded {plan.rounding.replace('_', ' ')} to {plain(money.step)}"
        return cls(money, plan.rounding, scope, how)

    def rounded(self, amount: Decimal, divisor: int = 1) -> Decimal:
        """Return `amount` / `divisor`, rounded as the plan says."""
        return round_amount(amount, self.money, self.rounding, divisor=divisor)

    def line(
        self,
        kind: LineKind,
        price: str,
        period: Period,
        part: Part,
        *,
        meter: str | None = None,
        dimensions: Dimensions | None = None,
        description: str | None = None,
    ) -> Line:
        """Return the line of a part; its description is the price's name and the part's label, or as given."""
        amount = self.rounded(part.amount, part.divisor)
        return Line(
            id=line_id(self.scope, kind, price, dimensions, part.tier, period),
            kind=kind,
            price=price,
            meter=meter,
            dimensions=dimensions,
            tier=part.tier,
            period=period,
            description=description or ", ".join(text for text in (price, part.label) if text),
            quantity=part.quantity,
            unit_price=part.unit_price,
            amount=amount,
            working=f"{part.working}; {self.how}: {format_amount(amount, self.money)}",
        )
