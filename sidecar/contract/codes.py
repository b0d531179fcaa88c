"""The one vocabulary of outcomes: answers, metrics, logs, commands and docs all use these snake_case codes.

The value is the sentence that the docs show for the code. `HTTP_STATUS` says what an answer whose whole request
ended in the code is sent with; codes that are only ever a result of a single event have no status of their own.
"""

from typing import Final

CODES: Final[dict[str, str]] = {
    # one event
    "duplicate": "the same event was accepted before; it is not counted again",
    "conflict": "this identity was accepted before with another payload; not counted, kept for the operator",
    "event_invalid": "the event is not an object of the fields that the documentation names",
    "event_too_large": "the event is larger than the limit",
    "user_id_invalid": "user_id is missing, empty, too long or has characters that are not allowed",
    "event_type_invalid": "event_type is missing, empty, too long or has characters that are not allowed",
    "id_invalid": "id is empty, too long or has characters that are not allowed",
    "source_invalid": "source is too long or has characters that are not allowed",
    "units_invalid": "units is not a decimal below 10^15 with at most 9 fractional digits",
    "timestamp_invalid": "timestamp is not RFC 3339 with an offset and at most 6 fractional digits",
    "timestamp_out_of_range": "timestamp is more than 5 minutes ahead or more than 5 years back",
    "too_old": "the event is older than what is still kept, so a repeat of it could not be recognised",
    "reason_invalid": "the reason of a void is missing, empty, too long or has characters that are not allowed",
    "properties_invalid": "properties is not a flat object of strings, numbers and booleans within the limits",
    # one request
    "body_invalid": "the body can't be read as its content type says",
    "body_too_large": "the body is larger than the limit",
    "too_many_events": "the request has more events than the limit",
    "content_type_unsupported": "the content type is not one of those that the endpoint reads",
    "content_encoding_unsupported": "compressed bodies are not enabled",
    "idempotency_key_invalid": "Idempotency-Key is not 1 to 255 visible ASCII characters",
    "idempotency_key_reused": "this Idempotency-Key was used before with another body; nothing was applied",
    "no_event_accepted": "every event of the request was rejected or in conflict",
    "not_found": "there is no such path",
    "method_not_allowed": "the path does not take this method",
    "query_invalid": "a query parameter is missing or can't be read",
    "range_not_live": "the range is older than the totals that Redis holds; ask `taximeter usage`",
    "protocol_unsupported": "the stream socket speaks none of the protocol versions that the client knows",
    "read_timeout": "the request did not arrive within the deadline",
    "unauthorized": "the token is missing or wrong",
    "forbidden": "the token does not allow this",
    # the sidecar can't take it now
    "not_registered": "this sidecar is not registered yet: a flusher has to run, and Redis has to be reachable",
    "journal_full": "the journal holds as much as it may and Postgres has not taken it yet",
    "journal_failed": "the journal can't be written",
    "overloaded": "too many requests are waiting; try again",
    "stopping": "the sidecar is stopping; try again",
    "usage_unavailable": "live usage can't be read now; try again",
    "internal": "a fault of the program; see its log",
    # commands and the flusher
    "starting": "the flusher has not ended its first cycle yet",
    "config_invalid": "a setting has a value that can't be used",
    "install_incomplete": "the command needs a library that this install leaves out",
    "target_missing": "no running system was found by flags, environment or endpoints.json",
    "redis_unavailable": "Redis does not answer",
    "redis_unsuitable": "Redis is set up in a way that would lose events",
    "database_unavailable": "PostgreSQL does not answer",
    "sidecar_unavailable": "no sidecar answers, or it takes nothing now",
    "schema_outdated": "the schema is not the one that this version needs; run `taximeter migrate`",
    "ledger_mismatch": "Redis or the journal belongs to another ledger or shard count",
    "journal_corrupt": "a journal record in the middle is damaged; see `taximeter journal repair`",
    "journal_locked": "another process holds this journal",
    "journal_waiting": "PostgreSQL does not have all of the journal yet; nothing is lost, try again",
    "catalog_invalid": "the catalog has entries that can't be applied; nothing was changed",
    "meter_in_use": "the meter has usage, so what it counts can't change; make a new one",
    "data_refused": "PostgreSQL can't store the event as it is; it is in quarantine",
    "codec_unknown": "a record has a version that this program does not know; update it",
    "epoch_changed": "the epoch changed while it was read; it is read again",
    "invariant_broken": "a rule that must always hold does not; nothing was changed",
    "file_invalid": "a file can't be read as what it should be",
    "server_missing": "a server program was not found",
    "server_failed": "a server program did not start or stop in time",
    # what an operator decides
    "already_decided": "an operator decided this before; nothing was changed",
    "producer_unknown": "there is no such sidecar; `taximeter producers` lists them",
    "producer_active": "the sidecar was heard of within the last minute; nothing was changed",
    "hole_unknown": "there is no such hole; `taximeter holes` lists them",
    "quarantine_unknown": "nothing in quarantine has this id; `taximeter quarantine` lists what is there",
    "backfill_unknown": "there is no such backfill; `taximeter backfill` lists them",
    "still_refused": "what is in quarantine can't be counted now either; nothing was changed",
    "subscription_unknown": "there is no such subscription; `taximeter subscriptions` lists them",
    # invoices
    "invoice_unknown": "there is no invoice with this id",
    "line_unknown": "the invoice has no such line",
    "grant_unknown": "there is no grant of credit with this id; `taximeter credits` lists them",
    "credit_note_unknown": "there is no credit note with this id; `taximeter credit` lists them",
    "credit_too_large": "a credit note would take off more than is left of the invoice or the line",
    "invoice_not_final": "credit notes are for invoices that are open, paid or uncollectible",
    "invoice_not_open": "only an invoice that is open or uncollectible can be voided",
    "signature_invalid": "no signing secret of ours made the signature, or its time is not within 5 minutes of now",
    "stripe_event_invalid": "the body is signed and no event of Stripe's",
    "erasure_refused": "the customer can't be erased while something of it may still be billed; nothing was changed",
    "erasure_waits": "a sidecar may still hold events of the customer, or another erasure is under way; try again",
    "grant_differs": "this id was used for a grant of credit on other terms; nothing was changed",
    "not_confirmed": "money would move and nobody said yes; nothing was done",
    "period_open": "the period has not ended by Postgres's clock",
    "producers_behind": "a sidecar may still have events of the period; it waits up to the finalization window",
    "proof_broken": "counters and events are known to disagree on it, or records are missing; see `taximeter verify`",
    "boundary_summed": "the period begins or ends inside a window of which some events are known by their sum alone",
    "stripe_customer_missing": "Stripe has no customer for the invoice, and it is parked",
    "delivery_in_progress": "another run delivers this invoice now",
    "stripe_key_missing": "no Stripe key is set, and the invoice was made to be sent",
    "stripe_key_refused": "Stripe does not take this key, or it needs --live",
    "stripe_account_changed": "the ledger bills in another Stripe account or mode",
    "stripe_unavailable": "Stripe does not answer; the next run goes on from here",
    "stripe_refused": "Stripe refused it for good; the invoice is parked with the reason",
    "stripe_lines_differ": "what Stripe has of the invoice is not what it should be; it is not finalized",
    "stripe_sink_differs": "the ledger's usage goes to Stripe the other way; both would bill it twice",
    "stripe_meter_missing": "Stripe has no active meter of that name; the events are parked",
    "meter_event_too_old": "Stripe takes meter events of the last 35 days; an operator decides on its units",
    "meter_event_unconfirmed": "nobody can tell whether Stripe has the meter event; an operator decides",
    "meter_event_missing": "there is no such meter event; `taximeter meters` lists those that are not sent",
    "usage_invalid": "the command was called with something that it can't use",
}

HTTP_STATUS: Final[dict[str, int]] = {
    "body_invalid": 400,
    "event_invalid": 422,
    "body_too_large": 413,
    "too_many_events": 413,
    "event_too_large": 422,
    "content_type_unsupported": 415,
    "content_encoding_unsupported": 415,
    "idempotency_key_invalid": 400,
    "idempotency_key_reused": 422,
    "no_event_accepted": 422,
    "not_found": 404,
    "method_not_allowed": 405,
    "query_invalid": 400,
    "range_not_live": 422,
    "read_timeout": 408,
    "unauthorized": 401,
    "forbidden": 403,
    "not_registered": 503,
    "journal_full": 503,
    "journal_failed": 503,
    "overloaded": 429,
    "stopping": 503,
    "usage_unavailable": 503,
    "internal": 500,
}


class TaximeterError(Exception):
    """Root of every error that a person may see: a `code` of `CODES`, and a `message` that says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class TryAgainError(TaximeterError):
    """What was asked can't be done now but may be later; a command exits with 75, an answer carries Retry-After."""
