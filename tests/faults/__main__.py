"""`python -m tests.faults --seed N --seconds S`: faults by chance under load, for as long as it is told; `make faults`.

Prints what was done and what the oracle found. Exits with 1 where anything is not as promised.
"""

import argparse
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from tests.conftest import make_server_dir
from tests.faults.kinds import FAULTS, LONG
from tests.faults.nursery import Nursery
from tests.faults.run import EVIDENCE, Report, do, endless, judge, keep_evidence
from tests.faults.sampling import Sampler
from tests.faults.world import Broken, Shape, World

# Journals are kept for longer than a standby here lags behind, and not for much longer: who gets a new id sends all of
# it again. Redis's keys are kept as briefly, so that its memory has an end.
SETTINGS: Final = {
    "TAXIMETER_JOURNAL_HOLD_S": "60",
    "TAXIMETER_JOURNAL_SEGMENT_BYTES": "4MiB",
    "TAXIMETER_DEDUPE_TTL_S": "60",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults happen (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: another one each time")
    parser.add_argument("--every", type=float, default=1.0, help="seconds from one fault to the next")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--batch", type=int, default=50, help="events in a request, on average")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--sidecars", type=int, default=2)
    parser.add_argument("--flushers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--only", default="", help="kinds of faults, with commas between them (default: all)")
    parser.add_argument("--without", default="", help="kinds of faults to leave out")
    parser.add_argument("--directory", type=Path, help="where to work (default: in memory)")
    parser.add_argument("--evidence", type=Path, default=EVIDENCE, help="where logs of a failure go")
    options = parser.parse_args()
    names = set(filter(None, options.only.split(","))) or set(FAULTS) - set(LONG)
    names -= set(options.without.split(","))
    if unknown := names - set(FAULTS):
        parser.error(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(sorted(FAULTS))}")
    print(f"seed {options.seed}", flush=True)
    return run(options, names)


def run(options: argparse.Namespace, names: set[str]) -> int:
    shape = Shape(
        seed=options.seed,
        sidecars=options.sidecars,
        flushers=options.flushers,
        shards=options.shards,
        rate=options.rate,
        batch=options.batch,
        sidecar=SETTINGS,
    )
    directory = make_server_dir(options.directory)
    nursery = Nursery()
    world = World(directory, shape, nursery)
    report = Report(options.seed)
    sampler = Sampler(world)
    try:
        world.start_clients(options.clients)
        _harm(world, options, names, report, sampler)
        judge(world, report)
    except (Broken, TimeoutError) as error:
        report.verdict.violations.append(str(error))
    finally:
        if not report.ok:
            keep_evidence(world, options.evidence)
        world.close()
        nursery.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(report.text())
    print(sampler.text())
    return 0 if report.ok else 1


def _harm(world: World, options: argparse.Namespace, names: set[str], report: Report, sampler: Sampler) -> None:
    started = time.monotonic()
    world.wait_for_traffic()
    due = started + options.every
    for name in endless(names, options.seed):
        while time.monotonic() < min(due, started + options.seconds):
            world.rest(min(1.0, max(0.0, due - time.monotonic())))
            sampler.sample()
        if time.monotonic() >= started + options.seconds:
            return
        do(world, name, report, started=started)
        sampler.sample()
        due += options.every


if __name__ == "__main__":
    sys.exit(main())
