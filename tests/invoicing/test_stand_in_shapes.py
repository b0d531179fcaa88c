"""The stand-in's answers have the fields and types of Stripe's own fixtures, where that file is at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stripe_stand_in import StripeStandIn
from tests.stripe_stand_in.shapes import line_item

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "stripe" / "fixtures3.json"


def compare(ours: Any, theirs: Any, where: str) -> list[str]:
    """Return what differs in keys and types; null agrees with anything, an empty collection with any other."""
    if ours is None or theirs is None:
        return []
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            return [f"{where}: expected an object, got {ours!r}"]
        if not theirs or not ours or where.endswith(".metadata"):
            return []
        found = [f"{where}: lacks {key}" for key in theirs.keys() - ours.keys()]
        found += [f"{where}: {key} is not theirs" for key in ours.keys() - theirs.keys()]
        for key in theirs.keys() & ours.keys():
            found += compare(ours[key], theirs[key], f"{where}.{key}")
        return found
    if isinstance(theirs, list):
        if not isinstance(ours, list):
            return [f"{where}: expected an array, got {ours!r}"]
        return [text for item in ours for text in compare(item, theirs[0], f"{where}[]")] if theirs else []
    return [] if type(ours) is type(theirs) else [f"{where}: expected {type(theirs).__name__}, got {ours!r}"]


def answers() -> dict[str, Any]:
    """Return one object of each kind, as the stand-in makes them."""
    store = StripeStandIn().test
    customer = {**store.add_customer("cus_1", email="a@example.com")}
    invoice = store.create_invoice("", {"customer": "cus_1"})
    item = store.create_item("", {"customer": "cus_1", "invoice": invoice["id"], "amount": 1234, "currency": "usd"})
    store.finalize(invoice["id"], {})
    line = line_item(item)
    note = {"type": "invoice_line_item", "invoice_line_item": line["id"], "amount": 34}
    credit_note = store.create_credit_note("", {"invoice": invoice["id"], "lines": [note]})
    meter = store.add_meter("api_call")
    usage = {"stripe_customer_id": "cus_1", "value": "25"}
    meter_event = store.create_meter_event("", {"event_name": "api_call", "payload": usage})
    span = {"customer": "cus_1", "start_time": 0, "end_time": (meter_event["timestamp"] // 60 + 1) * 60}
    (summary,) = store.list_summaries(meter["id"], span)["data"]
    return {
        "customer": customer,
        "invoice": invoice,
        "invoiceitem": item,
        "line_item": line,
        "credit_note": credit_note,
        "credit_note_line_item": credit_note["lines"]["data"][0],
        "billing.meter": meter,
        "billing.meter_event": meter_event,
        "billing.meter_event_summary": summary,
        "deleted_customer": store.delete_customer("cus_1", {}),
        "event": {**store.events[-1], "data": {"object": {}}},
    }


@pytest.mark.skipif(not FIXTURES.exists(), reason="Stripe's fixtures3.json is not beside this checkout")
@pytest.mark.parametrize("kind", sorted(answers()))
def test_an_answer_has_the_fields_and_types_of_stripes_fixture(kind: str) -> None:
    # Given Stripe's own example of this object
    theirs = json.loads(FIXTURES.read_text(encoding="utf-8"))["resources"][kind]

    # When the stand-in makes one
    ours = answers()[kind]

    # Then it has the same fields, of the same types
    assert compare(ours, theirs, kind) == []


def test_the_comparison_sees_a_field_that_is_missing_and_a_type_that_is_wrong() -> None:
    theirs = {"id": "x", "amount": 1, "period": {"start": 1, "end": 2}}

    found = compare({"id": 5, "amount": 1, "period": {"start": 1}}, theirs, "item")

    assert sorted(found) == ["item.id: expected str, got 5", "item.period: lacks end"]
