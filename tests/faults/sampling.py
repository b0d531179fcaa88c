"""Memory and open files of every process of a run, from /proc, and how they grow."""

import time
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.world import World

EVERY_S: Final = 2.0
WARM_S: Final = 20.0  # of a process's life that do not count: caches fill
HOUR_S: Final = 3600.0


class Sample(NamedTuple):
    """What a process held at a moment: seconds of its life, kilobytes of memory, open files."""

    age_s: float
    memory_kb: int
    files: int


def held(pid: int) -> tuple[int, int]:
    """Returns a process's resident memory in kilobytes and its open files. Raises OSError when it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]), len(list(Path(f"/proc/{pid}/fd").iterdir()))
    raise ProcessLookupError(pid)


def slope(samples: list[tuple[float, float]]) -> float:
    """Returns how much a value grows in a second: the least squares' line."""
    count = len(samples)
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


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
        pids = {name: program.pid for name, program in self._world.programs.items()}
        pids |= {"Redis": self._world.redis.server.pid, "PostgreSQL": self._world.postgres.server.pid}
        for name, pid in pids.items():
            if pid is not None:
                self._look(name, pid, now)

    def _look(self, name: str, pid: int, now: float) -> None:
        age_s = now - self._born.setdefault(pid, now)
        try:
            self._seen[name, pid].append(Sample(age_s, *held(pid)))
        except OSError:
            return

    def text(self) -> str:
        """Returns a table: of every name its longest life, most memory and files, and how they grew in it."""
        lines = [
            f"{'process':14} {'lives':>5} {'longest':>9} {'memory':>9} {'an hour':>11} {'files':>6} {'an hour':>8}"
        ]
        for name in sorted({name for name, _ in self._seen}):
            lives = [samples for (other, _), samples in self._seen.items() if other == name]
            longest = max(lives, key=lambda samples: samples[-1].age_s)
            warm = [sample for sample in longest if sample.age_s >= WARM_S] or longest
            memory = slope([(sample.age_s, sample.memory_kb / 1024) for sample in warm]) * HOUR_S
            files = slope([(sample.age_s, float(sample.files)) for sample in warm]) * HOUR_S
            most = max(sample.memory_kb for samples in lives for sample in samples) / 1024
            most_files = max(sample.files for samples in lives for sample in samples)
            lines.append(
                f"{name:14} {len(lives):>5} {longest[-1].age_s:>7.0f} s {most:>6.0f} MB {memory:>+8.1f} MB"
                f" {most_files:>6} {files:>+8.1f}"
            )
        return "\n".join(lines)
