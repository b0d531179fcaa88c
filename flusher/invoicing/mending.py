"""What to do about an invoice that is parked, by the reason it is parked for. Pure."""

from typing import Final

_AGAIN: Final = "and run `taximeter invoice` again"
_CUSTOMER: Final = (
    f"make the customer at Stripe, name another by `stripe_customer` in the catalog, or set "
    f"TAXIMETER_STRIPE_CREATE_CUSTOMERS=true, {_AGAIN}"
)
_OTHERWISE: Final = f"mend it {_AGAIN}"

# By our reasons, and by Stripe's error codes after `stripe_`.
_MENDING: Final = {
    "stripe_customer_missing": _CUSTOMER,
    "stripe_resource_missing": _CUSTOMER,
    "stripe_lines_differ": f"take off what is not ours, or delete the draft at Stripe, {_AGAIN}: it is made anew",
    "stripe_invoice_not_editable": f"somebody finalized or voided it at Stripe; {_OTHERWISE} to take that over",
    "stripe_customer_tax_location_invalid": (
        "give the customer an address at Stripe, or set TAXIMETER_STRIPE_AUTOMATIC_TAX=false and delete the draft, "
        f"{_AGAIN}"
    ),
    "stripe_amount_too_large": f"Stripe takes no such amount; delete the draft, split the plan's price {_AGAIN}",
}


def how_to_mend(reason: str) -> str:
    """Return what a person does about an invoice that is parked for `reason`."""
    return _MENDING.get(reason, _OTHERWISE)
