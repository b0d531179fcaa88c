"""Events as Stripe delivers them: signed bodies, to be given to a test or posted to a URL, in any order and again."""

import hmac
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from tests.stripe_stand_in.shapes import Resource

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Delivery:
    """One delivery of an event: the bytes that are signed, and the header that signs them."""

    body: bytes
    signature: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers that Stripe sends."""
        return {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": self.signature,
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }


def sign(body: bytes, *secrets: str, at: int | None = None) -> str:
    """Return a `Stripe-Signature` over the bytes: the time (now, or `at`), and a v1 for each endpoint secret.

    Two secrets are valid while one is rolled. The v0 is what Stripe adds in test mode, and nobody may accept.
    """
    when = int(time.time()) if at is None else at
    signed = str(when).encode() + b"." + body
    macs = [hmac.new(secret.encode(), signed, sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={when}", *(f"v1={mac}" for mac in macs), f"v0={sha256(signed).hexdigest()}"])


def delivery(event: Resource, *secrets: str, at: int | None = None) -> Delivery:
    """Return a signed delivery of an event, at another time when `at` is given (deliveries are repeated for days)."""
    body = json.dumps(event, indent=2, ensure_ascii=False, default=str).encode()
    return Delivery(body, sign(body, *secrets, at=at))


def post(url: str, sent: Delivery) -> int:
    """Deliver to an endpoint and return the status that it answers, as Stripe sees it: 2xx is success."""
    request = urllib.request.Request(url, sent.body, sent.headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
