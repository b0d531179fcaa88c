"""More lines than Stripe takes become sums of lines, always the same, with the same total."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from flusher.invoicing.invoice import Delivery, Invoice, InvoiceLine, Kind, Point, Status
from flusher.invoicing.payload import lines_params
from flusher.invoicing.rollup import stripe_lines
from flusher.pricing.money import currency, to_stripe
from flusher.pricing.period import Period
from tests.invoicing.delivery import Open, deliver
from tests.invoicing.world import World, utc
from tests.stripe_stand_in import StripeStandIn

JULY = Period(utc(2025, 7, 1), utc(2025, 8, 1))


def line(number: int, amount: str = "1.00", price: str = "calls", kind: str = "usage", tier: int = 1) -> InvoiceLine:
    return InvoiceLine(
        id=f"line_{number:06}",
        kind=kind,
        price=price,
        meter="api_call",
        dimensions=None,
        tier=tier,
        period=JULY,
        description=f"{price} {number}",
        quantity=Decimal(1),
        unit_price=None,
        amount=Decimal(amount),
    )


def invoice(*lines: InvoiceLine) -> Invoice:
    return Invoice(
        id="inv_1",
        kind=Kind.PERIOD,
        sequence=0,
        customer="cus_1",
        subscription="cus_1/pro",
        plan="pro",
        plan_version=1,
        currency="usd",
        period=JULY,
        status=Status.DRAFT,
        delivery=Delivery.PENDING,
        point=Point.DRAFT,
        lines=lines,
    )


def test_250_lines_stay_as_they_are() -> None:
    ours = invoice(*(line(number) for number in range(250)))

    assert [(one.id, one.amount, one.places) for one in stripe_lines(ours)] == [(one.id, 100, "") for one in ours.lines]


def test_of_251_lines_those_of_a_price_become_one_that_says_which() -> None:
    lines = [line(number, "0.03") for number in range(249)]
    fee = line(900, "10.00", "fee", "fixed")
    late = line(901, "-0.05")

    first, second = stripe_lines(invoice(*lines, fee, late))

    assert (first.amount, first.places) == (249 * 3 - 5, "1-249, 251")
    assert first.description == "calls: 250 lines in one, see invoice inv_1"
    assert (second.id, second.amount, second.places) == (fee.id, 1000, "")


def test_lines_are_put_together_as_little_as_needed() -> None:
    # Given 400 lines of 100 prices, in 2 tiers and 2 periods
    later = Period(JULY.end, JULY.end + timedelta(days=31))
    lines = [
        replace(line(number, price=f"p{price}", tier=tier), period=period)
        for number, (price, tier, period) in enumerate(product(range(100), (1, 2), (JULY, later)))
    ]

    # Then tiers become one before periods do, and both before prices
    assert len(stripe_lines(invoice(*lines))) == 200
    assert {one.period for one in stripe_lines(invoice(*lines))} == {JULY, later}
    assert len(stripe_lines(invoice(*lines), most=150)) == 100
    assert [one.period for one in stripe_lines(invoice(*lines), most=99)] == [Period(JULY.start, later.end)]


@given(
    st.lists(
        st.tuples(
            st.integers(-10_000, 10_000),
            st.sampled_from(["usage", "fixed", "credit", "minimum", "maximum", "adjustment", "discount"]),
            st.integers(0, 40),
            st.integers(1, 3),
        ),
        max_size=600,
    )
)
def test_however_many_lines_there_are_the_sum_is_the_invoices(drawn: list[tuple[int, str, int, int]]) -> None:
    ours = invoice(
        *(
            line(number, str(Decimal(cents).scaleb(-2)), f"price {price}", kind, tier)
            for number, (cents, kind, price, tier) in enumerate(drawn)
        )
    )

    found = stripe_lines(ours)

    assert len(found) <= 250
    assert len({one.id for one in found}) == len(found)
    assert sum(one.amount for one in found) == to_stripe(ours.total, currency("usd"))
    assert found == stripe_lines(ours)


def test_what_a_line_stands_for_fits_into_stripes_metadata() -> None:
    # Given every second of 20,000 lines: ranges do not help
    ours = invoice(*(line(number, price="ab"[number % 2]) for number in range(20_000)))

    for sent in lines_params(ours, stripe_lines(ours), "ledger", "in_1")["lines"]:
        metadata = sent["metadata"]
        assert len(metadata) <= 50
        assert all(len(key) <= 40 and len(value) <= 500 for key, value in metadata.items())
        assert metadata["taximeter_lines"].startswith(("1, 3, 5", "2, 4, 6"))
        assert metadata["taximeter_lines_40"].endswith("...")


def test_an_invoice_of_many_lines_is_sent_right_to_the_cent(
    world: World, stand_in: StripeStandIn, open_gateway: Open
) -> None:
    # Given two prices in 200 groups each
    world.apply(
        '[[meters]]\nname = "wide"\nevent_type = "wide"\ngroup_by = ["region"]\n'
        '[[plans]]\nname = "wide"\ncurrency = "usd"\n'
        + "".join(
            f'[[plans.prices]]\nname = "{name}"\nmeter = "wide"\nmodel = "per_unit"\nunit_price = "{price}"\n'
            "per_group = true\n"
            for name, price in (("calls", "1"), ("storage", "0.33"))
        )
    )
    stand_in.test.add_customer("cus_1")
    world.subscribe("cus_1", plan="wide", end="2025-08-01T00:00:00Z")
    for region in range(200):
        world.use("cus_1", 1, utc(2025, 7, 5), meter="wide", region=f"r{region}")
    (ours,) = world.run(utc(2025, 8, 1), stripe=True).invoices
    assert len(ours.lines) == 400

    deliver(world, open_gateway(), ours.id)

    (theirs,) = stand_in.test.invoices.values()
    assert (theirs["status"], theirs["total"]) == ("open", 26600)
    assert sorted(item["amount"] for item in stand_in.test.items.values()) == [6600, 20000]
