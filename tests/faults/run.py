"""A run: a world, faults in an order that a seed decides, and what the oracle makes of it at the end."""

import contextlib
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.faults.chains import strays
from tests.faults.kinds import FAULTS
from tests.faults.oracle import Oracle, Verdict
from tests.faults.world import Broken, World

EVIDENCE: Final = Path("faults-evidence")


@dataclass
class Report:
    """What a run did and what came of it."""

    seed: int
    done: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    proof: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything was as promised."""
        return not self.verdict.violations

    def text(self) -> str:
        """Returns the report for a person: faults by kind, figures, violations, and how to see it again."""
        width = max(map(len, self.done), default=0)
        lines = [f"{name:{width}}  {count:5}" for name, count in sorted(self.done.items())]
        lines.append(f"{'faults':{width}}  {sum(self.done.values()):5}")
        lines += [f"{count:>11,}  {name}" for name, count in self.verdict.figures.items()]
        lines += [f"VIOLATION  {one}" for one in self.verdict.violations]
        lines.append(f"seed {self.seed}: " + ("as promised" if self.ok else "NOT as promised"))
        return "\n".join(lines)


def shuffled(plan: Mapping[str, int], seed: int) -> list[str]:
    """Returns every fault of a plan as often as it says, in the order of the seed."""
    names = [name for name, count in sorted(plan.items()) for _ in range(count)]
    random.Random(seed).shuffle(names)
    return names


def endless(names: Iterable[str], seed: int) -> Iterator[str]:
    """Yields faults by chance, for ever."""
    rng, choices = random.Random(seed), sorted(names)
    while True:
        yield rng.choice(choices)


def do(world: World, name: str, report: Report, *, started: float) -> None:
    """Lets one fault happen, and notes it."""
    before = time.monotonic()
    detail = FAULTS[name](world)
    report.done[name] += 1
    line = f"{before - started:7.1f} s  {name} ({time.monotonic() - before:.1f} s): {detail}"
    report.lines.append(line)
    print(line, file=sys.stderr, flush=True)


def judge(world: World, report: Report) -> Report:
    """Heals the world, waits until all is drained, and asks the oracle."""
    report.proof = world.settle()
    with world.postgres.connect() as connection:
        files = sorted(world.directory.glob("*.ndjson"))
        report.verdict = Oracle(files, connection, world.skew_s).judge(report.proof)
        with world.still():
            journals = [world.journal(name) for name in world.sidecars]
            report.verdict.check("positions that are not in their journals", strays(journals, connection))
    report.verdict.check("processes that were not as they should be", world.problems)
    return report


def keep_evidence(world: World, to: Path) -> None:
    """Copies logs and the clients' files of a failed run, with where every program stands and who waits for whom."""
    to.mkdir(parents=True, exist_ok=True)
    for program in world.programs.values():
        program.signal(signal.SIGUSR1)
    with contextlib.suppress(psycopg.Error), world.postgres.connect() as connection:
        sessions = connection.execute("SELECT pid, pg_blocking_pids(pid), state, query FROM pg_stat_activity")
        (to / "sessions.txt").write_text("\n".join(map(str, sessions.fetchall())))
    time.sleep(0.5)
    for pattern in ("*.log", "*.ndjson", "*-journal/manifest.json"):
        for path in world.directory.glob(pattern):
            shutil.copy(path, to / path.relative_to(world.directory).as_posix().replace("/", "-"))


def run_plan(world: World, plan: Mapping[str, int], report: Report) -> Report:
    """Does every fault of a plan under traffic, and judges. What a failed run leaves is kept in `EVIDENCE`."""
    started = time.monotonic()
    world.start_clients()
    world.wait_for_traffic()
    try:
        for name in shuffled(plan, report.seed):
            do(world, name, report, started=started)
        judge(world, report)
    except (Broken, TimeoutError) as error:
        report.verdict.violations.append(str(error))
    if not report.ok:
        keep_evidence(world, EVIDENCE / str(report.seed))
    return report
