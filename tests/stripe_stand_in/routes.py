"""Every route of the stand-in: the params that Stripe's package knows for it, and what it does."""

from collections.abc import Callable
from typing import Any

from stripe import params as typed

from tests.stripe_stand_in.params import Params
from tests.stripe_stand_in.store import Store

Operation = Callable[[Store, str, Params], Any]

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
    "GET /v1/events": (typed.EventListParams, Store.list_events),
    "GET /v1/events/{id}": (typed.EventRetrieveParams, Store.retrieve_event),
}
