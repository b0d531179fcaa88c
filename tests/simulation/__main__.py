"""Runs histories: `python -m tests.simulation SEED --trace`, or many with `--histories N` or `--seconds S`."""

import argparse
import logging
import sys
import time
from collections import Counter

from tests.simulation.faults import PROFILES
from tests.simulation.history import History


def main() -> int:
    """Runs what the arguments say, and returns 1 when a history went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the first history")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    parser.add_argument("--histories", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--failures", type=int, default=10, help="stop after so many")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="           %(levelname)s %(message)s", level=logging.INFO)
    started = time.monotonic()
    failed, done = 0, 0
    counts: Counter[str] = Counter()
    events = 0
    while failed < arguments.failures and (
        done < arguments.histories if arguments.seconds is None else time.monotonic() - started < arguments.seconds
    ):
        trace = print if arguments.trace else None
        outcome = History(arguments.seed + done, profile=arguments.profile, trace=trace).run()
        done += 1
        counts += outcome.counts
        events += outcome.events
        if outcome.problems:
            failed += 1
            print(outcome.report(), file=sys.stderr)
    took_s = time.monotonic() - started
    print(f"{done} histories, {events} events, {failed} failed, {done / took_s * 60:.0f} a minute")
    for name, count in sorted(counts.items()):
        print(f"  {count:6} {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
