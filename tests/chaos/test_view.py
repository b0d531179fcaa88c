"""What a person sees of a run: everything that was done, and everything that is outstanding."""

import io
from collections import Counter

import pytest
from rich.console import Console

from flusher.chaos.client import Progress
from flusher.chaos.plan import Kind
from flusher.chaos.view import Scene, View


def test_a_table_shows_what_was_killed_and_what_is_outstanding() -> None:
    # given a run under way
    progress = Progress(sent=12_345, acknowledged=12_000, journaled=7_000, waiting=50, unanswered=295)
    faults = Counter({("redis", str(Kind.KILL)): 4, ("sidecar", str(Kind.STOP)): 7})
    parts = {"redis": "down", "sidecar": "stopped", "flusher": "runs", "postgres": "runs"}
    view = View(Scene("breaking it", 12.0, 300.0, parts, faults, progress, taken=11_000))
    # when it is shown
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(view._table())
    text = console.export_text()
    # then every figure is there
    assert "breaking it, 12 of 300 s" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["redis"] == ["redis", "down", "4"]
    assert lines["sidecar"] == ["sidecar", "stopped", "7"]
    assert "not yet in PostgreSQL  1,000" in text
    assert "12,000, 7,000 from the journal alone" in text


def test_where_there_is_no_terminal_it_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(Scene())
    with view.shown():
        view.say("redis killed")
    assert capsys.readouterr().err == "taximeter chaos: redis killed\n"
    assert view.scene.outstanding == "PostgreSQL does not answer"
