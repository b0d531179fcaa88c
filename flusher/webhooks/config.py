"""The settings of `taximeter webhooks`, and its secrets, which are in no flag."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import LOG_LEVELS, Address, Setting, read_address, read_level, read_settings
from sidecar.contract.settings import add_flags as add_flags_of

VARIABLE: Final = "TAXIMETER_STRIPE_WEBHOOK_SECRET"
FILE_VARIABLE: Final = f"{VARIABLE}_FILE"
SECRETS_MAX: Final = 8
_SECRET = re.compile(r"[\x21-\x7e]{8,255}")


def read_listening(text: str) -> Address:
    """Return where to listen."""
    address = read_address(text)
    if address is None:
        raise ValueError("expected HOST:PORT, got nothing")
    return address


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `taximeter webhooks` runs with, beside its servers and secrets."""

    webhooks_http: Annotated[
        Address, Setting("127.0.0.1:8132", read_listening, "HOST:PORT", "where events of Stripe are received")
    ]
    log_level: Annotated[
        str, Setting("info", read_level, "level", f"least severe log line on stderr: {', '.join(LOG_LEVELS)}")
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting."""
    add_flags_of(parser, Settings)


def settings_from(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> Settings:
    """Return the settings. Raises TaximeterError `config_invalid` that names every one that can't be used."""
    settings, problems = read_settings(Settings, flags, environment)
    if settings is None:
        raise TaximeterError("config_invalid", "; ".join(problems))
    return settings


def secrets_from(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the signing secrets, several while one takes the other's place: apart by spaces, commas or lines.

    Raises TaximeterError: `config_invalid`, `file_invalid`. No message shows one.
    """
    text, path = environment.get(VARIABLE, ""), environment.get(FILE_VARIABLE)
    if text and path:
        raise TaximeterError("config_invalid", f"{VARIABLE} and {FILE_VARIABLE} are both set; keep one")
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"{FILE_VARIABLE}: expected a file that holds the secret, can't read {path}"
            raise TaximeterError("file_invalid", message) from error
    found = tuple(filter(None, re.split(r"[\s,]+", text)))
    if not 1 <= len(found) <= SECRETS_MAX or not all(_SECRET.fullmatch(secret) for secret in found):
        raise TaximeterError(
            "config_invalid",
            f"{VARIABLE} or {FILE_VARIABLE}: expected 1 to {SECRETS_MAX} signing secrets of the endpoint "
            f"(whsec_...), got {len(found)}, or one that is none",
        )
    return found
