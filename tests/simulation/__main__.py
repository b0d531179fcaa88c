"""Runs histories: `python -m tests.simulation SEED --trace`, or many with `--histories N` or `--seconds S`."""

import argparse
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count

from tests.simulation.faults import PROFILES
from tests.simulation.history import History, Outcome

CHUNK = 20  # histories that a process runs between two words to the one that counts


def main() -> int:
    """Runs what the arguments say, and returns 1 when a history went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="the first history; a random one for a run of some seconds")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    parser.add_argument("--histories", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="go on for so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--profile", choices=PROFILES, help="which faults may meet; a random one by default")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.trace:
        logging.basicConfig(stream=sys.stdout, format="           %(levelname)s %(message)s", level=logging.INFO)
        outcomes = [History(arguments.seed or 0, profile=arguments.profile, trace=print).run()]
        failed = _tell(outcomes)
    else:
        outcomes, failed = [], 0
        for some in _many(arguments):
            outcomes += some
            failed += _tell(some)
            if failed >= arguments.failures:
                break
    _summarise(outcomes, failed, time.monotonic() - started)
    return 1 if failed else 0


def run(first: int, histories: int, profile: str | None) -> list[Outcome]:
    """Runs histories one after the other."""
    return [History(seed, profile=profile).run() for seed in range(first, first + histories)]


def _many(arguments: argparse.Namespace) -> Iterator[list[Outcome]]:
    """Yields the outcomes of chunks of histories, run by several processes."""
    first = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 40) if arguments.seconds else 0
    last = None if arguments.seconds else first + arguments.histories
    deadline = time.monotonic() + (arguments.seconds or 1e9)
    chunks = count(first, CHUNK)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        running: set[Future[list[Outcome]]] = set()
        try:
            while True:
                while len(running) < arguments.jobs and time.monotonic() < deadline:
                    start = next(chunks)
                    if last is not None and start >= last:
                        break
                    size = CHUNK if last is None else min(CHUNK, last - start)
                    running.add(pool.submit(run, start, size, arguments.profile))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _tell(outcomes: list[Outcome]) -> int:
    """Tells what went wrong, and returns how often."""
    wrong = [outcome for outcome in outcomes if outcome.problems]
    for outcome in wrong:
        sys.stderr.write(outcome.report() + "\n")
    return len(wrong)


def _summarise(outcomes: list[Outcome], failed: int, took_s: float) -> None:
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts += outcome.counts
    events, counted = sum(one.events for one in outcomes), sum(one.counted for one in outcomes)
    sys.stdout.write(
        f"{len(outcomes)} histories, {failed} went wrong, {len(outcomes) / took_s * 60:.0f} a minute; "
        f"{events} events said, {counted} counted\n"
    )
    for name, number in sorted(counts.items()):
        sys.stdout.write(f"{number:8}  {name}\n")


if __name__ == "__main__":
    sys.exit(main())
