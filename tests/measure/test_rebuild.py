"""The measurement runs, on little: a rebuild answers right as soon as it answers, and loses nothing that was sent."""

import json
import subprocess
import sys


def test_the_measurement_of_a_rebuild_runs_and_readers_are_never_told_wrong_figures() -> None:
    command = [sys.executable, "-m", "tests.measure.rebuild", "--rows", "20000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [phase["phase"] for phase in report["phases"]] == ["flushall", "command"]
    assert report["phases"][1]["said"]["totals"] >= 20_000
    for phase in report["phases"]:
        assert "200 right" in phase["reads"]["answers"]
        assert not [answer for answer in phase["reads"]["answers"] if "WRONG" in answer]
        assert set(phase["sends"]["answers"]) <= {"200 applied", "202 journaled"}
