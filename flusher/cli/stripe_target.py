"""Whether invoices go to Stripe, with which key, how, and what must be said before real money moves."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO, TypeVar

from flusher.invoicing.bucket import RATE_DEFAULT
from flusher.invoicing.gateway import CONCURRENCY_DEFAULT, StripeSettings
from flusher.invoicing.payload import CollectionMethod, StripeTerms
from sidecar.contract.codes import TaximeterError

KEY_VARIABLE: Final = "STRIPE_API_KEY"
KEY_FILE_VARIABLE: Final = "STRIPE_API_KEY_FILE"
BASE_VARIABLE: Final = "STRIPE_API_BASE"
COLLECT_VARIABLE: Final = "TAXIMETER_STRIPE_COLLECT"
METHOD_VARIABLE: Final = "TAXIMETER_STRIPE_COLLECTION_METHOD"
DAYS_VARIABLE: Final = "TAXIMETER_STRIPE_DAYS_UNTIL_DUE"
TAX_VARIABLE: Final = "TAXIMETER_STRIPE_AUTOMATIC_TAX"
ZERO_VARIABLE: Final = "TAXIMETER_STRIPE_ZERO"
CUSTOMERS_VARIABLE: Final = "TAXIMETER_STRIPE_CREATE_CUSTOMERS"
RATE_VARIABLE: Final = "TAXIMETER_STRIPE_RATE"
CONCURRENCY_VARIABLE: Final = "TAXIMETER_STRIPE_CONCURRENCY"

_BOOLEANS: Final = {"true": True, "false": False}
_ZERO: Final = {"send": True, "keep": False}
_METHODS: Final = {method.value: method for method in CollectionMethod}

T = TypeVar("T")


def find_stripe(
    environment: Mapping[str, str] | None = None, *, live: bool, sends: bool = True
) -> StripeSettings | None:
    """Return how Stripe is reached, or None when the environment names no key.

    `live` is whether `--live` was given: a live key is refused without it, and also when nothing says whether Stripe
    is to collect what it finalizes. A dry run (`sends` false) moves no money and needs neither. Raises
    TaximeterError: `config_invalid`, `file_invalid`, `usage_invalid`.
    """
    variables = os.environ if environment is None else environment
    key = _read_key(variables)
    if key is None:
        if live:
            message = f"--live: expected a live key in {KEY_VARIABLE} or {KEY_FILE_VARIABLE}, and neither is set"
            raise TaximeterError("usage_invalid", message)
        return None
    collect = _read_one_of(variables, COLLECT_VARIABLE, _BOOLEANS)
    settings = StripeSettings(
        key,
        variables.get(BASE_VARIABLE) or None,
        terms=_read_terms(variables, collect=bool(collect)),
        create_customers=_read_one_of(variables, CUSTOMERS_VARIABLE, _BOOLEANS) or False,
        rate=_read_count(variables, RATE_VARIABLE, 1_000) or RATE_DEFAULT,
        concurrency=_read_count(variables, CONCURRENCY_VARIABLE, 64) or CONCURRENCY_DEFAULT,
    )
    if not sends:
        return settings
    if settings.livemode != live:
        raise TaximeterError(
            "usage_invalid",
            "--live: the key is for tests; leave the flag out"
            if live
            else "the Stripe key is a live one: add --live to move real money, or use a key that begins with sk_test_",
        )
    if settings.livemode and collect is None:
        raise TaximeterError(
            "config_invalid",
            f"{COLLECT_VARIABLE}: expected true (Stripe charges and sends what is finalized) or false (somebody else "
            "does) with a live key; it is not set, and then nobody would collect",
        )
    return settings


def announce_stripe(settings: StripeSettings | None, stream: TextIO | None = None) -> None:
    """Say on standard error where invoices go; the key itself is never shown."""
    if settings is None:
        line = f"stripe: none ({KEY_VARIABLE} is not set), invoices stay here"
    else:
        line = (
            f"stripe: {settings.api_base or 'https://api.stripe.com'} ({'LIVE' if settings.livemode else 'test'} mode)"
        )
    (stream or sys.stderr).write(line + "\n")


def _read_key(variables: Mapping[str, str]) -> str | None:
    path = variables.get(KEY_FILE_VARIABLE)
    key = variables.get(KEY_VARIABLE, "").strip()
    if path and key:
        message = f"expected one of {KEY_VARIABLE} and {KEY_FILE_VARIABLE}, got both; unset one"
        raise TaximeterError("config_invalid", message)
    if path:
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"{KEY_FILE_VARIABLE}: expected a file that holds the key, can't read {path}: {error}"
            raise TaximeterError("file_invalid", message) from error
        if not key:
            raise TaximeterError(
                "file_invalid", f"{KEY_FILE_VARIABLE}: expected a file that holds the key, got nothing"
            )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise TaximeterError("config_invalid", "the Stripe key has characters that no key has; nothing was sent")
    return key or None


def _read_terms(variables: Mapping[str, str], *, collect: bool) -> StripeTerms:
    method = _read_one_of(variables, METHOD_VARIABLE, _METHODS) or CollectionMethod.CHARGE
    days = _read_count(variables, DAYS_VARIABLE, 365)
    if (method is CollectionMethod.SEND) != (days is not None):
        raise TaximeterError(
            "config_invalid",
            f"{DAYS_VARIABLE}: expected with {METHOD_VARIABLE}={CollectionMethod.SEND}, and only there; "
            f"got {days or 'nothing'} with {method}",
        )
    return StripeTerms(
        collect=collect,
        collection_method=method,
        days_until_due=days,
        automatic_tax=_read_one_of(variables, TAX_VARIABLE, _BOOLEANS) or False,
        send_zero=_read_one_of(variables, ZERO_VARIABLE, _ZERO) or False,
    )


def _read_one_of(variables: Mapping[str, str], name: str, values: Mapping[str, T]) -> T | None:
    text = variables.get(name, "").strip().lower()
    if text and text not in values:
        raise TaximeterError("config_invalid", f"{name}: expected {' or '.join(values)}, got {text!r}")
    return values.get(text)


def _read_count(variables: Mapping[str, str], name: str, most: int) -> int | None:
    text = variables.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most:
        return int(text)
    raise TaximeterError("config_invalid", f"{name}: expected a whole number from 1 to {most}, got {text!r}")
