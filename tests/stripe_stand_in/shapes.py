"""The objects of Stripe's API that we use, with every field that an answer holds.

Written from Stripe's published shapes; `tests/invoicing/test_stand_in_shapes.py` compares them with Stripe's own
fixtures where that file is at hand.
"""

from typing import Any

Resource = dict[str, Any]

_NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def list_of(data: list[Resource], url: str, *, has_more: bool = False) -> Resource:
    """Return a list object."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def deleted(resource: Resource) -> Resource:
    """Return what Stripe says of an object that was deleted."""
    return {"id": resource["id"], "object": resource["object"], "deleted": True}


def event(event_id: str, kind: str, data: Resource, created: int, api_version: str, *, livemode: bool) -> Resource:
    """Return an event as webhooks carry it."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": api_version,
        "created": created,
        "data": data,
        "livemode": livemode,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }


def account(account_id: str, country: str = "US") -> Resource:
    """Return the parts of an account that a client may rely on."""
    return {
        "id": account_id,
        "object": "account",
        "country": country,
        "default_currency": "usd",
        "charges_enabled": True,
        "details_submitted": True,
        "payouts_enabled": True,
        "email": "site@example.com",
        "type": "standard",
        "metadata": {},
    }


def customer(customer_id: str, created: int, *, livemode: bool) -> Resource:
    """Return a customer without anything optional."""
    return {
        "id": customer_id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": customer_id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": livemode,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def invoice_item(item_id: str, created: int, *, livemode: bool) -> Resource:
    """Return an invoice item of amount 0."""
    return {
        "id": item_id,
        "object": "invoiceitem",
        "amount": 0,
        "currency": "usd",
        "customer": "",
        "customer_account": None,
        "date": created,
        "description": None,
        "discountable": True,
        "discounts": [],
        "invoice": None,
        "livemode": livemode,
        "metadata": {},
        "net_amount": 0,
        "parent": None,
        "period": {"start": created, "end": created},
        "pricing": {"type": "price_details", "unit_amount_decimal": "0"},
        "proration": False,
        "quantity": 1,
        "quantity_decimal": "1",
        "tax_rates": [],
        "test_clock": None,
    }


def line_item(item: Resource) -> Resource:
    """Return the invoice line that an invoice item becomes."""
    return {
        "id": f"il_{item['id'].removeprefix('ii_')}",
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": item["discountable"],
        "discounts": item["discounts"],
        "invoice": item["invoice"],
        "livemode": item["livemode"],
        "metadata": item["metadata"],
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
        },
        "period": item["period"],
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": None,
        "subtotal": item["amount"],
        "taxes": [],
    }


def invoice(invoice_id: str, owner: Resource, created: int) -> Resource:
    """Return an empty draft for a customer."""
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": None,
        "account_tax_ids": None,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "enabled": False,
            "liability": None,
            "status": None,
            "disabled_reason": None,
            "provider": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "created": created,
        "currency": "usd",
        "custom_fields": None,
        **_customer_of_invoice(owner),
        **_money_of_invoice(),
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": list_of([], f"/v1/invoices/{invoice_id}/lines"),
        "livemode": owner["livemode"],
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": created,
        "period_start": created,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "subscription": None,
        "test_clock": None,
        "webhooks_delivered_at": None,
    }


def _customer_of_invoice(owner: Resource) -> Resource:
    return {
        "customer": owner["id"],
        "customer_account": None,
        "customer_address": owner["address"] or _NO_ADDRESS,
        "customer_email": owner["email"],
        "customer_name": owner["name"],
        "customer_phone": owner["phone"],
        "customer_shipping": None,
        "customer_tax_exempt": owner["tax_exempt"],
        "customer_tax_ids": [],
    }


def _money_of_invoice() -> Resource:
    return {
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "ending_balance": None,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
    }


def credit_note(note_id: str, invoice: Resource, created: int) -> Resource:
    """Return a credit note of amount 0 for an invoice."""
    return {
        "id": note_id,
        "object": "credit_note",
        "amount": 0,
        "amount_shipping": 0,
        "created": created,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": created,
        "invoice": invoice["id"],
        "lines": list_of([], f"/v1/credit_notes/{note_id}/lines"),
        "livemode": invoice["livemode"],
        "memo": None,
        "metadata": {},
        "number": "",
        "out_of_band_amount": None,
        "pdf": f"https://pay.stripe.com/credit_notes/{note_id}/pdf",
        "post_payment_amount": 0,
        "pre_payment_amount": 0,
        "pretax_credit_amounts": [],
        "reason": None,
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "total": 0,
        "total_excluding_tax": 0,
        "total_taxes": [],
        "type": "pre_payment",
        "voided_at": None,
    }


def credit_note_line(line_id: str, *, livemode: bool) -> Resource:
    """Return a line of a credit note of amount 0; it has `invoice_line_item` only when it credits one."""
    return {
        "id": line_id,
        "object": "credit_note_line_item",
        "amount": 0,
        "description": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "livemode": livemode,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": 1,
        "tax_rates": [],
        "taxes": [],
        "type": "custom_line_item",
        "unit_amount": None,
        "unit_amount_decimal": None,
    }
