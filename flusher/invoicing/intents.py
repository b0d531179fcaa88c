"""What we asked of Stripe, or were about to: keys and parameters, committed before each call."""

from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from flusher.invoicing.payload import Params, idempotency_key
from flusher.invoicing.store import rows
from flusher.sql import query

Connection = psycopg.Connection[TupleRow]

KEY_LIFE_S: Final = 20 * 3600
"""How long a key is relied on. Stripe keeps them for at least 24 hours; the rest is for a slow call and clocks."""

DONE: Final = "done"
REFUSED: Final = "refused"
LOST: Final = "lost"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an invoice's delivery; `line` is the line that an item is for, else empty."""

    invoice: str
    name: str
    line: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """The step as query values."""
        return {"invoice": self.invoice, "step": self.name, "line": self.line}


@dataclass(frozen=True, slots=True)
class Intent:
    """The latest attempt at a step. `outcome` is None while it is not known how it ended."""

    attempt: int
    key: str
    params: Params
    age_s: int
    outcome: str | None = None
    object: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether its key still makes a call safe to repeat."""
        return self.outcome is None and self.age_s < KEY_LIFE_S


def latest_intent(connection: Connection, step: Step) -> Intent | None:
    """Return the latest attempt at a step, or None."""
    for row in rows(connection, "find_intent", step.values):
        return Intent(
            row["attempt"], row["idempotency_key"], row["params"], row["age_s"], row["outcome"], row["object"]
        )
    return None


def add_intent(connection: Connection, step: Step, attempt: int, ledger: str, params: Params) -> Intent:
    """Commit to a call and return the intent: the one that is stored, when another run was first."""
    key = idempotency_key(ledger, step.invoice, step.name, step.line, attempt)
    values = {**step.values, "attempt": attempt, "idempotency_key": key, "params": Jsonb(params)}
    connection.execute(query("add_intent"), values)
    return latest_intent(connection, step) or Intent(attempt, key, params, 0)


def end_intent(
    connection: Connection, step: Step, intent: Intent, outcome: str, *, made: str | None = None, error: str = ""
) -> None:
    """Remember how an attempt ended, unless that is known already."""
    values = {"attempt": intent.attempt, "outcome": outcome, "object": made, "error": error[:2000] or None}
    connection.execute(query("end_intent"), {**step.values, **values})
