"""What a person sees of a run: a table that lives on a terminal, and lines elsewhere. All of it on standard error."""

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flusher.chaos.client import Progress
from flusher.chaos.plan import PARTS, Kind

LINES_KEPT: Final = 8
LINE_EVERY_S: Final = 10.0


@dataclass(slots=True)
class Scene:
    """What there is to see: how each part is, what was done to it, what the client knows, what Postgres has."""

    doing: str = "starting"
    elapsed_s: float = 0.0
    seconds: float = 0.0
    parts: Mapping[str, str] = field(default_factory=dict)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    progress: Progress = field(default_factory=Progress)
    taken: int | None = None

    @property
    def outstanding(self) -> str:
        """How many acknowledged events are not known to be in PostgreSQL."""
        if self.taken is None:
            return "PostgreSQL does not answer"
        return f"{max(0, self.progress.acknowledged - self.taken):,}"


class View:
    """Shows scenes and remembers the last lines that were said."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._console = Console(file=sys.stderr, highlight=False)
        self._live: Live | None = None
        self._said: deque[str] = deque(maxlen=LINES_KEPT)
        self._line_at = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table for as long as this lasts."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, auto_refresh=False) as self._live:
            yield
        self._live = None

    def say(self, line: str) -> None:
        """Say what happened."""
        if self._live is None:
            sys.stderr.write(f"taximeter chaos: {line}\n")
            sys.stderr.flush()
        else:
            self._said.append(f"{self.scene.elapsed_s:6.1f} s  {line}")
            self.refresh()

    def refresh(self) -> None:
        """Show how it is now."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            progress = self.scene.progress
            self.say(
                f"{self.scene.doing}: {progress.sent:,} events sent, {progress.acknowledged:,} acknowledged, "
                f"{progress.waiting:,} wait for an answer, not yet in PostgreSQL: {self.scene.outstanding}"
            )

    def _table(self) -> Group:
        scene, progress = self.scene, self.scene.progress
        parts = Table(box=None, pad_edge=False)
        for heading in ("part", "now", *(kind for kind in Kind if kind is not Kind.REMEMBER)):
            parts.add_column(heading, justify="left" if heading in {"part", "now"} else "right")
        for part in PARTS:
            counts = [scene.faults[part, kind] for kind in Kind if kind is not Kind.REMEMBER]
            now = scene.parts.get(part, "down")
            colour = {"runs": "green", "stopped": "yellow"}.get(now, "red")
            parts.add_row(part, Text(now, style=colour), *(f"{count}" if count else "" for count in counts))
        events = Table(box=None, pad_edge=False, show_header=False)
        for name, value in {
            "events sent": f"{progress.sent:,}",
            "acknowledged": f"{progress.acknowledged:,}, {progress.journaled:,} from the journal alone",
            "wait for an answer": f"{progress.waiting:,}",
            "given up without one": f"{progress.unanswered:,}",
            "not yet in PostgreSQL": scene.outstanding,
        }.items():
            events.add_row(name, value)
        head = f"taximeter chaos: {scene.doing}, {scene.elapsed_s:.0f} of {scene.seconds:.0f} s"
        return Group(Text(head, style="bold"), Text(), parts, Text(), events, Text(), *map(Text, self._said))
