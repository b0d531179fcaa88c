"""`taximeter bench` measures: real processes, a moment each, and nothing is left of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_server_dir


@pytest.fixture
def scratch() -> Iterator[Path]:
    directory = make_server_dir()
    yield directory
    shutil.rmtree(directory)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flusher", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def measured(scratch: Path, *rows: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    only = [argument for row in rows for argument in ("--only", row)]
    done = bench(*only, "--rounds", "1", "--seconds", "0.2", "--data-dir", str(scratch), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    return report, {figure["name"]: figure for figure in report["figures"]}


def test_rows_are_measured_beside_their_ceilings_and_nothing_is_left_behind(scratch: Path) -> None:
    # when some of the rows are measured for a moment
    report, figures = measured(scratch, "http-json-500", "drain", "sidecar-memory")
    # then each has a figure, and the ratio to what was measured beside it
    assert report["machine"]["journal on"] != "unknown"
    ours = figures["HTTP, JSON, 500 events, ids"]
    assert ours["value"] > 0
    assert ours["cpu_us"]["sidecar"] > 0
    beside = {other["name"]: other for other in ours["beside"]}
    webdis = beside.pop("webdis, one SET NX")
    assert bool(webdis["rounds"]) == (shutil.which("webdis") is not None)
    assert len(beside) == 4
    for other in beside.values():
        assert other["ratio"] == pytest.approx(ours["value"] / other["value"])
    drained = figures["drain, JSON, 500 events, ids"]
    assert {beside["name"] for beside in drained["beside"]} == {"bare staging insert", "bare COPY"}
    assert all(beside["ratio"] > 0 for beside in drained["beside"])
    assert 50 < figures["PostgreSQL, an event with its key"]["value"] < 1000
    assert 10 < figures["sidecar, idle"]["value"] <= figures["sidecar, at full load"]["value"]
    # and neither a file nor a process
    assert list(scratch.iterdir()) == []
    assert not [
        entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and str(scratch) in _command_line(entry)
    ]


def test_what_comes_behind_ingest_is_measured_too(scratch: Path) -> None:
    _, figures = measured(scratch, "latency", "together", "billable")
    seen = [name for name in figures if "in GET /v1/usage" in name]
    assert len(seen) == 2
    assert [name.rpartition(", ")[2] for name in figures] == [
        *("p50", "p99", *(name.rpartition(", ")[2] for name in seen), "ids", "p50 of 5", "p99 of 5"),
    ]
    assert all(figure["value"] > 0 for figure in figures.values())


def test_the_stream_and_the_client_are_measured_too(scratch: Path) -> None:
    _, figures = measured(scratch, "stream-msgpack-10", "wrk", "client-stream", "client-unix")
    assert list(figures) == [
        "stream socket, msgpack, 10 events, ids",
        *(["HTTP, JSON, 1 event, ids, sent by wrk"] if shutil.which("wrk") else []),
        "client library, stream socket, single calls",
        "client library, stream socket, app CPU for a call",
        "client library, HTTP on the Unix socket, single calls",
        "client library, HTTP on the Unix socket, app CPU for a call",
    ]
    assert all(figure["value"] > 0 for figure in figures.values())
    assert figures["client library, stream socket, single calls"]["cpu_us"].keys() == {"sidecar", "Valkey", "app"}


def test_a_row_that_there_is_not_is_told_with_those_that_there_are() -> None:
    done = bench("--only", "nothing")
    assert done.returncode == 2
    assert "usage_invalid: --only: expected one of http-json-500, " in done.stderr
    assert done.stderr.endswith("got 'nothing'\n")


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
