"""Every row of the benchmark, in the order of the table, with what it should come to.

What else is to be measured is one more `Row` here: `run` gets the servers and the pace, and yields figures.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Final, NamedTuple

from flusher.bench import store_rows
from flusher.bench.client_rows import client
from flusher.bench.contest import Pace
from flusher.bench.figures import Figure, Goal
from flusher.bench.http_rows import ARTICLE, BARE, SET_NX, TWO_STEP, WEBDIS, Kind, measure
from flusher.bench.latency_rows import latency
from flusher.bench.requests import Encoding
from flusher.bench.servers import Stand
from flusher.bench.wrk_rows import by_wrk
from flusher.summed import KeyedRows
from sidecar.contract.codes import TaximeterError

_SIZES: Final = (1, 10, 100, 500, 1000)
_ENCODINGS: Final[tuple[Encoding, ...]] = ("json", "ndjson", "msgpack")

# Kinds of ingest that are judged: their goals, and what stands beside them.
_JUDGED: Final[dict[Kind, tuple[tuple[Goal, ...], tuple[str, ...]]]] = {
    Kind(500): (
        (Goal(SET_NX, least=0.40), Goal(WEBDIS, least=4), Goal(ARTICLE, least=20)),
        (SET_NX, WEBDIS, ARTICLE, TWO_STEP, BARE),
    ),
    Kind(500, keyed=True): ((Goal(SET_NX, least=1.0),), (SET_NX,)),
    Kind(1): ((Goal(BARE, least=0.75),), (BARE,)),
}


class Row(NamedTuple):
    """What is measured together. `quick` says that the short form has it too."""

    name: str
    run: Callable[[Stand, Pace], Iterator[Figure]]
    quick: bool = False


def _kinds() -> list[Kind]:
    """Return every kind of ingest over HTTP, those that are judged first."""
    kinds = list(_JUDGED)
    kinds += [Kind(size, encoding) for encoding, size in product(_ENCODINGS, _SIZES)]
    kinds += [Kind(size, keyed=True) for size in _SIZES[1:]]
    kinds += [Kind(size, way="unix") for size in _SIZES]
    kinds += [Kind(size, "msgpack", keyed, "stream") for keyed, size in product((False, True), _SIZES)]
    kinds += [Kind(500, append_only=False), Kind(500, keyed=True, append_only=False)]
    return list(dict.fromkeys(kinds))


def _ingest(kind: Kind) -> Row:
    goals, beside = _JUDGED.get(kind, ((), (SET_NX, BARE) if kind.events > 1 else (BARE,)))
    return Row(kind.row, partial(measure, kind, goals, beside), quick=kind in _JUDGED)


def all_rows() -> list[Row]:
    """Return every row."""
    ids, keyed = Kind(500), Kind(500, keyed=True)
    return [
        *map(_ingest, _kinds()),
        Row("wrk", partial(by_wrk, Goal(BARE, least=0.75))),
        Row("client-stream", partial(client, "stream", Goal(least=100_000), Goal(most=5)), quick=True),
        Row("client-unix", partial(client, "unix", Goal(least=100_000), Goal(most=5))),
        Row("latency", partial(latency, ids, Goal(most=10)), quick=True),
        Row("latency-single", partial(latency, Kind(1), Goal(most=10))),
        Row(
            "drain",
            partial(store_rows.drain, "drain", ids, Goal(store_rows.STAGING, least=0.60)),
            quick=True,
        ),
        Row(
            "drain-key",
            partial(store_rows.drain, "drain-key", keyed, Goal(store_rows.STAGING, least=0.60)),
        ),
        Row(
            "drain-summed",
            partial(
                store_rows.drain,
                "drain-summed",
                keyed,
                Goal(store_rows.STAGING, least=0.60),
                keyed_rows=KeyedRows.SUMMED,
            ),
        ),
        Row("together", partial(store_rows.together, "together", ids, Goal(least=60_000)), quick=True),
        Row(
            "together-key",
            partial(store_rows.together, "together-key", keyed, Goal(least=200_000), keyed_rows=KeyedRows.SUMMED),
            quick=True,
        ),
        Row("billable", partial(store_rows.billable, Goal(most=1000)), quick=True),
        Row(
            "redis-memory",
            partial(store_rows.redis_memory, {"ids": Goal(most=110), "a key per 500": Goal(most=2)}),
            quick=True,
        ),
        Row("sidecar-memory", partial(store_rows.sidecar_memory, Goal(most=60), Goal(most=200)), quick=True),
    ]


def chosen(names: Sequence[str], *, quick: bool) -> list[Row]:
    """Return the rows with these names, or every row, or every row of the short form.

    Raises TaximeterError `usage_invalid` for a name that there is not.
    """
    rows = all_rows()
    unknown = [name for name in names if name not in {row.name for row in rows}]
    if unknown:
        known = ", ".join(row.name for row in rows)
        raise TaximeterError("usage_invalid", f"--only: expected one of {known}; got {unknown[0]!r}")
    if names:
        return [row for row in rows if row.name in names]
    return [row for row in rows if row.quick or not quick]
