"""Whether a request is from Stripe, and of now. Pure.

`Stripe-Signature: t=UNIX_TIME,v1=HEX[,v1=HEX...]`, where HEX is HMAC-SHA256 over `t`, a full stop and the body as it
came. Source: https://docs.stripe.com/webhooks, "Verify webhook signatures manually". The package's own check decodes
the body before, takes one secret and lets a time in the future pass, so a header that somebody wrote down once could
be used later.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sidecar.contract.codes import TaximeterError

TOLERANCE_S: Final = 300
HEADER_MAX: Final = 2048
_TIME = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-f]{64}")


def verify(body: bytes, header: str, secrets: Sequence[str], now: datetime) -> None:
    """Raise TaximeterError `signature_invalid` unless one of the secrets signed the body within 5 minutes of now."""
    times, signatures = _parts(header)
    if len(times) != 1 or not signatures:
        raise _invalid("expected one t= and at least one v1= in the header Stripe-Signature")
    signed = times[0].encode() + b"." + body
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    if not any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures):
        raise _invalid("no secret of ours makes this signature; the body has to be passed on as it came")
    apart_s = int(times[0]) - int(now.timestamp())
    if abs(apart_s) > TOLERANCE_S:
        way = "ahead of" if apart_s > 0 else "behind"
        raise _invalid(f"it was signed {abs(apart_s)} s {way} this machine's clock, expected at most {TOLERANCE_S}")


def _parts(header: str) -> tuple[list[str], list[str]]:
    """Return the times and the signatures of a header; what can't be one is left out."""
    pairs: Iterable[tuple[str, str, str]] = (part.strip().partition("=") for part in header[:HEADER_MAX].split(","))
    times, signatures = [], []
    for name, _, value in pairs:
        if name == "t" and _TIME.fullmatch(value):
            times.append(value)
        elif name == "v1" and _HEX.fullmatch(value):
            signatures.append(value)
    return times, signatures


def _invalid(text: str) -> TaximeterError:
    return TaximeterError("signature_invalid", text)
