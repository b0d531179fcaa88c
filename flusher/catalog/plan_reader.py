"""Reads a plan, and what a subscription has otherwise, from tables, and writes them back: the form that a file and
the database share."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from flusher.catalog.fitting import interval_problems
from flusher.catalog.price_reader import optional_amount, read_limits, read_price
from flusher.catalog.price_table import TableOut, amounts_table, price_table
from flusher.catalog.reader import Table, shown
from flusher.pricing.money import CURRENCIES, Rounding, plain
from flusher.pricing.period import Anchor, Cycle, Interval
from flusher.pricing.plan import Commitment, Credit, Discount, Overrides, Plan, Price

HUNDRED: Final = Decimal(100)
PRICES_MAX: Final = 100
DISCOUNTS_MAX: Final = 20
CREDITS_MAX: Final = 20
DAYS_MAX: Final = 36_500
DURATION_MAX: Final = 100_000
PRIORITY_MAX: Final = 1_000_000

OWN_KEYS: Final = ("rounding", "discounts", "commitment", "credits", "trial")
"""What a subscription has otherwise than its plan, and says itself."""
INNER_KEYS: Final = ("prices", "minimum", "maximum", "threshold")
"""What a subscription has otherwise than its plan, and says in `overrides`."""
OVERRIDE_KEYS: Final = (*OWN_KEYS, *INNER_KEYS)
PLAN_KEYS: Final = ("name", "currency", "interval", "anchor", *OVERRIDE_KEYS)


def read_plan(table: Table) -> Plan | None:
    """Return the plan of a table, or None when the table's report has a problem with it."""
    mark = table.report.mark()
    name = table.text("name")
    code = _currency(table)
    cycle = Cycle(table.choice("interval", Interval, Interval.MONTH), table.choice("anchor", Anchor, Anchor.CALENDAR))
    extras = _read(table, table, prices_required=True)
    table.only(PLAN_KEYS)
    if not table.report.clean_since(mark):
        return None
    for key, message in interval_problems(extras, cycle.interval):
        table.report.add(table.at(key), message)
    return Plan(name, code, (), cycle).under(extras) if table.report.clean_since(mark) else None


def read_overrides(table: Table) -> Overrides | None:
    """Return what a subscription has otherwise, from a table of all of it, or None when there is a problem with it.

    That is how it is stored (`overrides_table`).
    """
    mark = table.report.mark()
    overrides = _read(table, table)
    table.only(OVERRIDE_KEYS)
    return overrides if table.report.clean_since(mark) else None


def read_own(subscription: Table) -> Overrides | None:
    """Return what a subscription's entry in a file has otherwise than its plan, or None when there is a problem.

    `OWN_KEYS` stand in the entry itself, `INNER_KEYS` in its table `overrides`. Other keys are left to the caller.
    """
    mark = subscription.report.mark()
    inner = subscription.table("overrides")
    overrides = _read(subscription, inner)
    inner.only(INNER_KEYS)
    return overrides if subscription.report.clean_since(mark) else None


def _read(own: Table, inner: Table, *, prices_required: bool = False) -> Overrides:
    """Return `OWN_KEYS` of one table and `INNER_KEYS` of another, or of the same."""
    minimum, maximum = read_limits(inner)
    threshold = optional_amount(inner, "threshold")
    if threshold == 0:
        inner.problem("threshold", "an amount above 0", "leave it out to bill at the end of periods alone")
    return Overrides(
        prices=_prices(inner, required=prices_required),
        rounding=own.choice("rounding", Rounding, None) if own.has("rounding") else None,
        minimum=minimum,
        maximum=maximum,
        discounts=_discounts(own),
        commitment=_commitment(own) if own.has("commitment") else None,
        credits=_credits(own),
        trial_days=_trial_days(own) if own.has("trial") else None,
        threshold=threshold,
    )


def _currency(table: Table) -> str:
    """Return the plan's currency as a lower-case code."""
    mark = table.report.mark()
    code = table.text("currency").lower()
    if table.report.clean_since(mark) and code not in CURRENCIES:
        table.problem("currency", 'a three-letter currency that Stripe supports, such as "usd"')
    return code


def _prices(table: Table, *, required: bool) -> tuple[Price, ...]:
    prices = [read_price(price) for price in table.tables("prices", PRICES_MAX, required=required)]
    _distinct(table, "prices", [None if price is None else price.name for price in prices], "price")
    return tuple(price for price in prices if price)


def _distinct(table: Table, key: str, names: Sequence[str | None], noun: str) -> None:
    """Note an entry whose name an earlier one has; None is one that can't be read."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name is not None and name in seen:
            path = f"{table.at(key)}[{number}].name"
            table.report.add(path, f"{shown(name)} names an earlier {noun} of this plan; give each its own name")
        elif name is not None:
            seen.add(name)


def _discounts(table: Table) -> tuple[Discount, ...]:
    discounts = [_discount(one) for one in table.tables("discounts", DISCOUNTS_MAX)]
    _distinct(table, "discounts", [discount.name for discount in discounts], "discount")
    return tuple(discounts)


def _discount(table: Table) -> Discount:
    table.only(("name", "percent", "amount", "duration"))
    percent = table.rate("percent") if table.has("percent") else None
    amount = optional_amount(table, "amount")
    if percent is not None and percent > HUNDRED:
        table.problem("percent", "at most 100 percent")
    if table.has("percent") == table.has("amount"):
        came = "both" if table.has("percent") else "neither"
        table.report.add(table.path, f"expected either percent or amount, got {came}")
    duration = table.integer("duration", None, 1, DURATION_MAX) if table.has("duration") else None
    return Discount(table.text("name", "discount"), percent, amount, duration)


def _commitment(table: Table) -> Commitment | None:
    mark = table.report.mark()
    inner = table.table("commitment")
    if not table.report.clean_since(mark):
        return None
    inner.only(("amount", "interval"))
    return Commitment(inner.amount("amount"), inner.choice("interval", Interval, None))


def _credits(table: Table) -> tuple[Credit, ...]:
    found = [_credit(one) for one in table.tables("credits", CREDITS_MAX)]
    _distinct(table, "credits", [credit.name for credit in found], "credit")
    return tuple(found)


def _credit(table: Table) -> Credit:
    table.only(("name", "amount", "priority", "expires_days", "cost_basis", "every_period"))
    return Credit(
        name=table.text("name", "credit"),
        amount=table.amount("amount"),
        priority=table.integer("priority", 100, 0, PRIORITY_MAX),
        expires_days=table.integer("expires_days", None, 1, DAYS_MAX) if table.has("expires_days") else None,
        cost_basis=table.amount("cost_basis", "1"),
        every_period=table.flag("every_period", default=False),
    )


def _trial_days(table: Table) -> int | None:
    mark = table.report.mark()
    inner = table.table("trial")
    if not table.report.clean_since(mark):
        return None
    inner.only(("days",))
    return inner.integer("days", None, 0, DAYS_MAX)


def plan_table(plan: Plan) -> TableOut:
    """Return the plan as the table that `read_plan` reads: JSON values only, decimals as texts.

    What a plan doesn't have is left out, so that a plan keeps its table when plans learn something new.
    """
    return {
        "name": plan.name,
        "currency": plan.currency,
        "interval": plan.cycle.interval.value,
        "anchor": plan.cycle.anchor.value,
        **_own_table(plan),
        **_inner_table(plan),
    }


def overrides_table(overrides: Overrides) -> TableOut:
    """Return what a subscription has otherwise as the table that `read_overrides` reads, without what it has not."""
    return {**_own_table(overrides), **_inner_table(overrides)}


def own_table(overrides: Overrides) -> TableOut:
    """Return what a subscription has otherwise as keys of its entry in a file, which `read_own` reads."""
    inner = _inner_table(overrides)
    return {**_own_table(overrides), **({"overrides": inner} if inner else {})}


def _own_table(of: Plan | Overrides) -> TableOut:
    """Return `OWN_KEYS`, without those that are absent."""
    table: TableOut = {}
    if of.rounding is not None:
        table["rounding"] = of.rounding.value
    if of.discounts:
        table["discounts"] = [_discount_table(discount) for discount in of.discounts]
    if of.commitment is not None:
        table["commitment"] = {"amount": plain(of.commitment.amount), "interval": of.commitment.interval.value}
    if of.credits:
        table["credits"] = [_credit_table(credit) for credit in of.credits]
    if of.trial_days or (of.trial_days == 0 and isinstance(of, Overrides)):
        table["trial"] = {"days": of.trial_days}
    return table


def _inner_table(of: Plan | Overrides) -> TableOut:
    """Return `INNER_KEYS`, without those that are absent."""
    prices = {"prices": [price_table(price) for price in of.prices]} if of.prices else {}
    return {**prices, **amounts_table(minimum=of.minimum, maximum=of.maximum, threshold=of.threshold)}


def _discount_table(discount: Discount) -> TableOut:
    duration = {} if discount.duration is None else {"duration": discount.duration}
    return {"name": discount.name, **amounts_table(percent=discount.percent, amount=discount.amount), **duration}


def _credit_table(credit: Credit) -> TableOut:
    return {
        "name": credit.name,
        "amount": plain(credit.amount),
        "priority": credit.priority,
        **({} if credit.expires_days is None else {"expires_days": credit.expires_days}),
        "cost_basis": plain(credit.cost_basis),
        "every_period": credit.every_period,
    }
