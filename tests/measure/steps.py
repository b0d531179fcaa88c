"""Measures what an event costs at each step on its way from a request to Redis: `make measure-steps`.

One process and no server: each step is the product's own function, run alone, by the CPU time that it takes. In a
sidecar sockets, the event loop and the disk come on top, and caches that have gone cold between the steps.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import hiredis

from flusher.bench.requests import Encoding, encode
from sidecar import answers
from sidecar.bodies import BODY_TYPES
from sidecar.contract import scripts
from sidecar.contract.codec import Claim, Position, Running, encode_batch
from sidecar.contract.meters import Revision
from sidecar.contract.scripts import Shard
from sidecar.ingest import Receipt
from sidecar.reading import Terms, read
from sidecar.segment import Start, frame, link

ROUNDS: Final = 300
NOW_US: Final = 1_753_090_461_000_000  # 2025-07-21T09:34:21Z
USERS: Final = 100
_DAY_S: Final = 86_400


class Kind(NamedTuple):
    """A request: how many events, with ids or under one key, of one second or each of its own microsecond."""

    name: str
    events: int
    encoding: Encoding = "json"
    with_ids: bool = True
    own_times: bool = False


KINDS: Final = (
    Kind("JSON, 500, ids", 500),
    Kind("JSON, 500, ids, own times", 500, own_times=True),
    Kind("JSON, 500, one key", 500, with_ids=False),
    Kind("msgpack, 500, one key, own times", 500, "msgpack", with_ids=False, own_times=True),
    Kind("JSON, 1, id", 1),
)


def body_of(kind: Kind) -> bytes:
    """Returns a body of the kind: of a hundred users in turn, an API call each."""
    events: list[dict[str, object]] = []
    for number in range(kind.events):
        moment = f"2025-07-21T09:34:20.{number:06}Z" if kind.own_times else "2025-07-21T09:34:20Z"
        event: dict[str, object] = {"user_id": f"cus_{number % USERS:06}", "event_type": "api_call", "units": 1}
        events.append(event | {"timestamp": moment} | ({"id": f"request-{number:08}"} if kind.with_ids else {}))
    return encode(events, kind.encoding)


def cpu_us(step: Callable[[], object], events: int, rounds: int) -> float:
    """Returns the CPU microseconds that a step takes for an event: in the best round, as nothing came between."""
    best_ns = min(_once_ns(step) for _ in range(rounds))
    return round(best_ns / events / 1000, 3)


def _once_ns(step: Callable[[], object]) -> int:
    began_ns = time.process_time_ns()
    step()
    return time.process_time_ns() - began_ns


def steps(kind: Kind, rounds: int = ROUNDS) -> dict[str, float]:
    """Returns the CPU microseconds of an event of the kind at each step, and of all of them."""
    body, media_type = body_of(kind), f"application/{kind.encoding}"
    key = None if kind.with_ids else "request-1"
    terms = Terms(NOW_US, 0, Revision(0, []), 1, os.urandom, key)
    reading = read(media_type, body, terms)
    (events,) = reading.shares.values()
    claims = [Claim(events.claim_key, bytes(16), 0, len(events))] if events.claim_key is not None else []
    batch = events.batch(0, 0, NOW_US, NOW_US, claims)
    record = encode_batch(batch)
    start = Start(Position(0, bytes(16)), Running(0, 0))
    step = link(start, record, batch.count, batch.nanos)
    shard, revision = Shard("0123456789abcdef", 1, 0, "gen-AB_1"), Revision(0, [])
    command = scripts.ingest(shard, "fedcba9876543210", step, batch, revision, _DAY_S).evalsha()
    receipt = Receipt(applied=True)

    def measured(step_: Callable[[], object]) -> float:
        return cpu_us(step_, kind.events, rounds)

    decoding = measured(lambda: BODY_TYPES[media_type].events(body, terms.events_max))
    found = {
        "decode the body": decoding,
        "check, normalise, identify": round(measured(lambda: read(media_type, body, terms)) - decoding, 3),
        "columns": measured(lambda: encode_batch(events.batch(0, 0, NOW_US, NOW_US, claims))),
        "sum, chain, checksum": measured(
            lambda: (link(start, record, batch.count, batch.nanos), frame(record, batch.count, 0))
        ),
        "arguments of the script": measured(
            lambda: scripts.ingest(shard, "fedcba9876543210", step, batch, revision, _DAY_S).evalsha()
        ),
        "pack the command": measured(lambda: hiredis.pack_command(cast("tuple[bytes]", command))),
        "answer": measured(
            lambda: answers.applied(answers.outcome_of(reading, receipt), reading, receipt, with_ids=False)
        ),
    }
    return found | {"all": round(sum(found.values()), 3)}


def table(costs: dict[str, dict[str, float]]) -> str:
    """Returns the costs as a table in Markdown."""
    lines = ["| µs of CPU an event | " + " | ".join(costs) + " |", "| --- |" + " ---: |" * len(costs)]
    rows = {step: [f"{cost[step]:.2f}" for cost in costs.values()] for step in next(iter(costs.values()))}
    return "\n".join([*lines, *(f"| {step} | {' | '.join(cells)} |" for step, cells in rows.items())])


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description="Measure what an event costs at each step of the sidecar.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each step is run (default: {ROUNDS})")
    args = parser.parse_args()
    costs = {kind.name: steps(kind, args.rounds) for kind in KINDS}
    print(json.dumps(costs, ensure_ascii=False) if args.json else table(costs))


if __name__ == "__main__":
    main()
