"""Answers what sidecars ask about usage that counters can't tell, on a thread and connections of its own."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import msgspec
import psycopg
from psycopg.rows import TupleRow

from flusher.database import connect, first_line
from flusher.source import Source
from flusher.sql import query
from flusher.usage import Range, read_usage
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.units import format_units, from_decimal
from sidecar.contract.usage import (
    ANSWER_TTL_S,
    ROWS_MAX,
    WAIT_S,
    UsageAnswer,
    UsageFound,
    UsageQuestion,
    decode_question,
)

LISTEN_S: Final = 1  # how long Redis holds our question for a question, and how long we may take to end
PAUSE_S: Final = 1.0

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_MANY: Final = f"there are more than {ROWS_MAX} rows; ask for one meter, or ask `taximeter usage`"

_log = logging.getLogger(__name__)


class Answers:
    """Takes one question after the other. Any number may do so at once: each question is taken by one."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self._source = Source.connect(redis_url)
        self._database_url = database_url
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def __enter__(self) -> "Answers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LISTEN_S + WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answer_next()
            except TaximeterError as error:
                _log.debug("%s; asking again", error)
                self._stop.wait(PAUSE_S)
        self._source.close()
        self._drop_connection()

    def answer_next(self) -> bool:
        """Answer the oldest question, waiting a second for one; return whether there was any.

        Raises TryAgainError `redis_unavailable`.
        """
        found = self._source.command("BLPOP", keys.USAGE_QUESTIONS, LISTEN_S)
        if found is None:
            return False
        try:
            question = decode_question(found[1])
        except msgspec.DecodeError as error:
            _log.warning("a question about usage can't be read: %s", error)
            return True
        answer = msgspec.json.encode(self._answer(question))
        self._source.command("SET", keys.usage_answer(question.id), answer, "EX", ANSWER_TTL_S)
        return True

    def _answer(self, question: UsageQuestion) -> UsageAnswer:
        try:
            connection = self._connected()
            span = Range(*(_EPOCH + timedelta(microseconds=at) for at in (question.start_us, question.end_us)))
            meters = None if question.meter is None else [question.meter]
            if meters is None:
                meters = [name for (name,) in connection.execute(query("list_valued_meters")).fetchall()]
            read = read_usage(connection, span, users=[question.user_id], meters=meters)
            rows = list(islice(read, ROWS_MAX + 1))
        except (TaximeterError, psycopg.Error) as error:
            self._drop_connection()
            return UsageAnswer(error=f"PostgreSQL can't tell it now: {first_line(error)}")
        if len(rows) > ROWS_MAX:
            return UsageAnswer(error=_TOO_MANY)
        return UsageAnswer(
            [
                UsageFound(row.customer, row.meter, row.dimensions, format_units(from_decimal(row.units)), row.events)
                for row in rows
            ]
        )

    def _connected(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None:
            self._connection = connect(self._database_url, autocommit=True)
            self._connection.execute(query("answer_soon"))
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
