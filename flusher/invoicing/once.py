"""Makes a call that changes something at Stripe once, however often we come to it.

Before a call its key and parameters are committed (`intents`), and a repeat sends the same ones under the same key. A
key is relied on for `KEY_LIFE_S`. After that, and before every further attempt, we look for what exists, by our ids in
its metadata, before anything is made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.rows import TupleRow

from flusher.invoicing.gateway import RefusedError, Remote, UnavailableError
from flusher.invoicing.intents import DONE, LOST, REFUSED, Intent, Step, add_intent, end_intent, latest_intent
from flusher.invoicing.payload import Params

Connection = psycopg.Connection[TupleRow]

ATTEMPTS: Final = 3
"""Attempts in a row, each under a key of its own, at a call that Stripe fails and keeps failing under its key."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what it sends, how it is made, and how to find what an earlier attempt made.

    `params` is asked for once an attempt, after `find` for every attempt but the first.
    """

    step: Step
    params: Callable[[], Params]
    send: Callable[[Params, str], Remote]
    find: Callable[[Intent], Remote | None]


def perform(connection: Connection, ledger: str, call: Call, *, attempts: int = ATTEMPTS) -> Remote:
    """Make a call, or find that it was made, and return what it made.

    `connection` is in autocommit mode. Raises RefusedError, UnavailableError or KeyRefusedError: asked again, it goes
    on from there.
    """
    intent = latest_intent(connection, call.step)
    if intent is None:
        intent = add_intent(connection, call.step, 1, ledger, call.params())
    while True:
        if intent.outcome == DONE and intent.object is not None:
            return Remote(intent.object)
        if not intent.is_usable:
            found = call.find(intent)
            if found is None or intent.outcome is not None:
                if intent.outcome is None:
                    end_intent(connection, call.step, intent, LOST, error="its key was too old to be repeated")
                intent = add_intent(connection, call.step, intent.attempt + 1, ledger, call.params())
            if found is not None:
                end_intent(connection, call.step, intent, DONE, made=found.id)
                return found
        attempts -= 1
        made = _send(connection, call, intent, last=attempts <= 0)
        if made is not None:
            return made
        intent = latest_intent(connection, call.step) or intent


def _send(connection: Connection, call: Call, intent: Intent, *, last: bool) -> Remote | None:
    """Send an attempt; None when it is lost for good under its key and another may be made."""
    try:
        made = call.send(intent.params, intent.key)
    except RefusedError as error:
        end_intent(connection, call.step, intent, REFUSED, error=error.message)
        raise
    except UnavailableError as error:
        if not error.replayed:
            raise
        # Stripe failed under this key and keeps saying so, whether or not it took effect: look, then use another.
        end_intent(connection, call.step, intent, LOST, error=error.message)
        if last:
            raise
        return None
    end_intent(connection, call.step, intent, DONE, made=made.id)
    return made
