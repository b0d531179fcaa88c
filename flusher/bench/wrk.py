"""Runs wrk in the load generator's place: reads a `Wrk` and then a `Turn` a line, answers each with a `Measured`.

wrk measures whole seconds, at least one.
"""

import math
import resource
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from flusher.bench.load import TIMEOUT_S, Measured, Turn, Wrk

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")


class _Summary(msgspec.Struct):
    requests: int
    microseconds: int
    failed: int


def run(wrk: Wrk, turn: Turn) -> Measured:
    """Send for a turn. A turn whose answers were not all good says so."""
    seconds = math.ceil(turn.seconds)
    command = ["wrk", "-t1", f"-c{wrk.connections}", f"-d{seconds}s", "-s", str(_SCRIPT)]
    before_s = _children_s()
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{wrk.port}", secrets.token_hex(4)],
        capture_output=True,
        text=True,
        timeout=seconds + TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        return Measured(0, 0.0, 0.0, 0, [], f"wrk failed: {done.stderr or done.stdout}")
    summary = msgspec.json.decode(done.stdout.rstrip().rpartition("\n")[2], type=_Summary)
    problem = f"{summary.failed} of {summary.requests} requests failed" if summary.failed else ""
    return Measured(summary.requests, summary.microseconds / 1e6, _children_s() - before_s, 0, [], problem)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Answer turns until standard input ends."""
    wrk = msgspec.json.decode(sys.stdin.buffer.readline(), type=Wrk)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(run(wrk, msgspec.json.decode(line, type=Turn))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
