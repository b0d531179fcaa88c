"""Thousands of histories, each from its seed. A failure says how it is replayed."""

import os
import subprocess
import sys

import pytest

from tests.simulation.faults import PROFILES
from tests.simulation.history import History

HISTORIES = int(os.environ.get("HISTORIES", "2000"))
CHUNK = 50


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_whatever_goes_wrong_every_answered_event_counts_once(first: int) -> None:
    wrong = [
        outcome.report()
        for seed in range(first, min(first + CHUNK, HISTORIES))
        if (outcome := History(seed).run()).problems
    ]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_history_is_the_same_every_time_it_is_replayed(profile: str) -> None:
    # given a seed; when it is run in two processes that hash text in different ways
    traces = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7", "--profile", profile, "--trace"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.partition("the dice end at")
        for hash_seed in ("1", "2")
    ]
    # then everything happens at the same moment, up to the last throw of the dice
    (first, _, first_end), (second, _, second_end) = traces
    assert first.splitlines() == second.splitlines()
    assert first_end.splitlines()[0] == second_end.splitlines()[0] != ""
