"""Values of single events: kept of the meters that sums and counts can't tell, and of those priced per event.

They are written in the transaction that inserts the events, and nothing is ever merged: what a meter shows follows from
the rows of a range of time, in whatever order and in however many drains they came.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import psycopg
from psycopg.rows import TupleRow

from flusher import rows
from flusher.law import Case
from flusher.sql import query
from sidecar.contract.codec import numbers
from sidecar.contract.meters import Revision

Connection = psycopg.Connection[TupleRow]


class Valued(NamedTuple):
    """An event whose values may be kept: whose it is, when it happened, in microseconds since 1970, and its key."""

    user_id: str
    time_us: int
    key: bytes


def insert_values(connection: Connection, cases: Sequence[Case], revision_of: Callable[[int], Revision]) -> None:
    """Store what the events that count of settled cases are to the meters that keep it.

    Raises psycopg's errors; the events must have been inserted in the same transaction.
    """
    found = [row for case in cases for row in _rows(case, revision_of(case.batch.revision))]
    if found:
        with connection.cursor() as cursor, cursor.copy(query("copy_values")) as copy:
            for part in rows.copied_values(found):
                copy.write(part)


def delete_values(connection: Connection, events: Sequence[Valued]) -> int:
    """Take out everything that is kept of some events, and return how many values that was."""
    columns = {
        "users": [event.user_id for event in events],
        "times_us": [event.time_us for event in events],
        "keys": [event.key for event in events],
    }
    return connection.execute(query("delete_values"), columns).rowcount


def _rows(case: Case, revision: Revision) -> Iterator[bytes]:
    """Yield the rows of the single events of a case that count. None of them is in a summed row (`summed._kept`)."""
    batch = case.batch
    shared = {
        number: [rows.shared_of_value(content.user_id, value) for value in values]
        for number, content in enumerate(batch.contents)
        if revision.keeps_values(content.event_type)
        and (values := revision.values(content.event_type, content.properties, content.nanos))
    }
    if not shared:
        return
    content_of, times_us, keys = numbers("H", batch.content_of), numbers("q", batch.times_us), rows.keys_of(batch)
    for place in case.singles():
        for fields in shared.get(content_of[place], ()):
            yield rows.value_row(fields, times_us[place], keys[place])
