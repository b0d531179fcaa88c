"""Memory and open files of every process of a run, from /proc, and how they grow."""

import contextlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.world import World

EVERY_S: Final = 2.0
WARM_S: Final = 45.0  # of a process's life that do not count: caches fill
HOUR_S: Final = 3600.0


class Sample(NamedTuple):
    """What a process held at a moment of the run: seconds of its life, kilobytes of memory, open files."""

    at_s: float
    age_s: float
    memory_kb: int
    files: int


def held(pid: int) -> tuple[int, int]:
    """Returns a process's own memory in kilobytes and its open files. Raises OSError when it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]), len(list(Path(f"/proc/{pid}/fd").iterdir()))
    raise ProcessLookupError(pid)


def growth(lives: list[list[tuple[float, float]]]) -> float:
    """Returns how much a value grows in a second within lives: one line through all, each life from its own mean."""
    rise = run = 0.0
    for samples in lives:
        mean_x = sum(x for x, _ in samples) / len(samples)
        mean_y = sum(y for _, y in samples) / len(samples)
        rise += sum((x - mean_x) * (y - mean_y) for x, y in samples)
        run += sum((x - mean_x) ** 2 for x, _ in samples)
    return rise / run if run else 0.0


class Sampler:
    """Looks at the processes of a world now and then; a process that was started anew is another one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        self._born: dict[int, float] = {}
        self._looked_at = 0.0

    def sample(self) -> None:
        """Looks, if it is time."""
        now = time.monotonic()
        if now - self._looked_at < EVERY_S:
            return
        self._looked_at = now
        for name, program in self._world.programs.items():
            self._look(name, [program.pid], now)
        self._look("Redis", [self._world.redis.server.pid], now)
        postgres = self._world.postgres
        self._look("PostgreSQL", [postgres.server.pid, *postgres.backends()], now)

    def _look(self, name: str, pids: list[int | None], now: float) -> None:
        """Notes what a process and its children hold."""
        if (pid := pids[0]) is None:
            return
        age_s = now - self._born.setdefault(pid, now)
        memory_kb = files = 0
        for one in pids:
            with contextlib.suppress(OSError):
                more_kb, more_files = held(one or 0)
                memory_kb, files = memory_kb + more_kb, files + more_files
        if memory_kb:
            self._seen[name, pid].append(Sample(now, age_s, memory_kb, files))

    def text(self) -> str:
        """Returns a table: of every name its lives, most memory and files, how they grow in an hour of a life, and the
        memory of those that live for a while in each quarter of the run."""
        heads = ("process", "lives", "longest", "memory", "an hour", "files", "an hour", "memory by quarters")
        lines = ["{:14} {:>5} {:>9} {:>9} {:>11} {:>6} {:>8}  {}".format(*heads)]
        for name in sorted({name for name, _ in self._seen}):
            lives = [samples for (other, _), samples in self._seen.items() if other == name]
            longest = max(samples[-1].age_s for samples in lives)
            warm = [[sample for sample in samples if sample.age_s >= WARM_S] for samples in lives]
            warm = [samples for samples in warm if len(samples) > 1]
            memory = growth([[(one.age_s, one.memory_kb / 1024) for one in samples] for samples in warm]) * HOUR_S
            files = growth([[(one.age_s, float(one.files)) for one in samples] for samples in warm]) * HOUR_S
            most = max(sample.memory_kb for samples in lives for sample in samples) / 1024
            most_files = max(sample.files for samples in lives for sample in samples)
            quarters = self._quarters([sample for samples in warm for sample in samples])
            lines.append(
                f"{name:14} {len(lives):>5} {longest:>7.0f} s {most:>6.0f} MB {memory:>+8.1f} MB"
                f" {most_files:>6} {files:>+8.1f}  {quarters}"
            )
        return "\n".join(lines)

    def _quarters(self, samples: list[Sample]) -> str:
        times = [sample.at_s for seen in self._seen.values() for sample in seen]
        start, length = min(times), max(max(times) - min(times), 1.0)
        found: list[list[int]] = [[], [], [], []]
        for sample in samples:
            found[min(3, int(4 * (sample.at_s - start) / length))].append(sample.memory_kb)
        return " ".join(f"{sum(kbs) / len(kbs) / 1024:.0f}" if kbs else "-" for kbs in found)
