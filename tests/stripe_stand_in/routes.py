"""Every route of the stand-in: the params that Stripe's package knows for it, and what it does."""

from collections.abc import Callable
from typing import Any

from stripe import params as typed
from stripe.params import billing
from stripe.params.v2 import billing as billing_v2

from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.store import Store

Operation = Callable[[Store, str, Params], Any]

STREAM = "POST /v2/billing/meter_event_stream"
"""The only route that is called with a session's token instead of an API key."""

ROUTES: dict[str, tuple[type, Operation]] = {
    "GET /v1/account": (typed.AccountRetrieveCurrentParams, Store.retrieve_account),
    "POST /v1/customers": (typed.CustomerCreateParams, Store.create_customer),
    "GET /v1/customers": (typed.CustomerListParams, Store.list_customers),
    "GET /v1/customers/{id}": (typed.CustomerRetrieveParams, Store.retrieve_customer),
    "POST /v1/customers/{id}": (typed.CustomerUpdateParams, Store.update_customer),
    "DELETE /v1/customers/{id}": (typed.CustomerDeleteParams, Store.delete_customer),
    "POST /v1/invoiceitems": (typed.InvoiceItemCreateParams, Store.create_item),
    "GET /v1/invoiceitems": (typed.InvoiceItemListParams, Store.list_items),
    "GET /v1/invoiceitems/{id}": (typed.InvoiceItemRetrieveParams, Store.retrieve_item),
    "DELETE /v1/invoiceitems/{id}": (typed.InvoiceItemDeleteParams, Store.delete_item),
    "POST /v1/invoices": (typed.InvoiceCreateParams, Store.create_invoice),
    "GET /v1/invoices": (typed.InvoiceListParams, Store.list_invoices),
    "GET /v1/invoices/{id}": (typed.InvoiceRetrieveParams, Store.retrieve_invoice),
    "POST /v1/invoices/{id}": (typed.InvoiceUpdateParams, Store.update_invoice),
    "DELETE /v1/invoices/{id}": (typed.InvoiceDeleteParams, Store.delete_invoice),
    "GET /v1/invoices/{id}/lines": (typed.InvoiceLineItemListParams, Store.list_lines),
    "POST /v1/invoices/{id}/add_lines": (typed.InvoiceAddLinesParams, Store.add_lines),
    "POST /v1/invoices/{id}/finalize": (typed.InvoiceFinalizeInvoiceParams, Store.finalize),
    "POST /v1/invoices/{id}/pay": (typed.InvoicePayParams, Store.pay),
    "POST /v1/invoices/{id}/void": (typed.InvoiceVoidInvoiceParams, Store.void),
    "POST /v1/invoices/{id}/mark_uncollectible": (typed.InvoiceMarkUncollectibleParams, Store.mark_uncollectible),
    "POST /v1/credit_notes": (typed.CreditNoteCreateParams, Store.create_credit_note),
    "GET /v1/credit_notes": (typed.CreditNoteListParams, Store.list_credit_notes),
    "GET /v1/credit_notes/{id}": (typed.CreditNoteRetrieveParams, Store.retrieve_credit_note),
    "POST /v1/credit_notes/{id}": (typed.CreditNoteUpdateParams, Store.update_credit_note),
    "GET /v1/credit_notes/{id}/lines": (typed.CreditNoteLineItemListParams, Store.list_credit_note_lines),
    "POST /v1/credit_notes/{id}/void": (typed.CreditNoteVoidCreditNoteParams, Store.void_credit_note),
    "POST /v1/billing/meters": (billing.MeterCreateParams, Store.create_meter),
    "GET /v1/billing/meters": (billing.MeterListParams, Store.list_meters),
    "GET /v1/billing/meters/{id}": (billing.MeterRetrieveParams, Store.retrieve_meter),
    "POST /v1/billing/meters/{id}": (billing.MeterUpdateParams, Store.update_meter),
    "POST /v1/billing/meters/{id}/deactivate": (billing.MeterDeactivateParams, Store.deactivate_meter),
    "POST /v1/billing/meters/{id}/reactivate": (billing.MeterReactivateParams, Store.reactivate_meter),
    "GET /v1/billing/meters/{id}/event_summaries": (billing.MeterEventSummaryListParams, Store.list_summaries),
    "POST /v1/billing/meter_events": (billing.MeterEventCreateParams, Store.create_meter_event),
    "POST /v2/billing/meter_events": (billing_v2.MeterEventCreateParams, Store.create_meter_event_v2),
    "POST /v2/billing/meter_event_session": (billing_v2.MeterEventSessionCreateParams, Store.create_session),
    STREAM: (billing_v2.MeterEventStreamCreateParams, Store.create_stream),
    "GET /v1/events": (typed.EventListParams, Store.list_events),
    "GET /v1/events/{id}": (typed.EventRetrieveParams, Store.retrieve_event),
}
