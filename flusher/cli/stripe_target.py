"""Whether invoices go to Stripe, with which key, and what must be said before real money moves."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from flusher.invoicing.gateway import StripeSettings
from sidecar.contract.codes import TaximeterError

KEY_VARIABLE = "STRIPE_API_KEY"
KEY_FILE_VARIABLE = "STRIPE_API_KEY_FILE"
BASE_VARIABLE = "STRIPE_API_BASE"
COLLECT_VARIABLE = "TAXIMETER_STRIPE_COLLECT"

_COLLECT = {"true": True, "false": False}


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
    collect = _read_collect(variables)
    settings = StripeSettings(key, variables.get(BASE_VARIABLE) or None, collect=bool(collect))
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


def _read_collect(variables: Mapping[str, str]) -> bool | None:
    text = variables.get(COLLECT_VARIABLE, "").strip().lower()
    if text and text not in _COLLECT:
        raise TaximeterError("config_invalid", f"{COLLECT_VARIABLE}: expected true or false, got {text!r}")
    return _COLLECT.get(text)
