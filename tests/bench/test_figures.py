"""The statistics of a benchmark, and the table that people read."""

from typing import Any

import pytest
from rich.console import Console

from flusher.bench.figures import Figure, Goal, percentile
from flusher.bench.table import number, render


def shown(figures: list[Figure]) -> str:
    console = Console(width=240)
    with console.capture() as captured:
        console.print(render(figures, {"cores": 2}, ["what it means"]))
    return captured.get()


def test_a_ratio_is_the_median_over_the_rounds_and_not_that_of_the_medians() -> None:
    # given a machine that was busy in the second round, for both, and in the third for one of them
    figure = Figure("row", "name", "events/s", [100.0, 10.0, 100.0], {"ceiling": [200.0, 20.0, 50.0]})
    # then each round is judged by itself
    assert figure.ratio("ceiling") == 0.5
    assert figure.value == 100.0


def test_what_was_not_measured_has_no_ratio_and_no_value() -> None:
    figure = Figure("row", "name", "events/s", beside={"webdis": []})
    assert figure.value is None
    assert figure.ratio("webdis") is None
    assert figure.as_json()["value"] is None


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


def test_a_goal_is_a_floor_or_a_ceiling_and_its_bound_belongs_to_it() -> None:
    assert Goal(least=0.4).met(0.4)
    assert not Goal(least=0.4).met(0.39)
    assert Goal(most=10).met(10)
    assert not Goal(most=10).met(10.1)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (123_456.7, "123,457"), (12.345, "12.35"), (0.4, "0.400"), (100, "100")]
)
def test_numbers_have_the_digits_that_mean_something(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_table_has_a_line_for_each_pair_and_says_what_was_missed_and_what_is_missing() -> None:
    # given one that meets a goal and misses another, one without anything beside it, and one that failed
    figures = [
        Figure(
            "a",
            "batches",
            "events/s",
            [50_000.0],
            {"SET NX": [100_000.0], "article": [1_000.0], "webdis": []},
            (Goal("SET NX", least=0.6), Goal("article", least=20), Goal("webdis", least=4)),
            {"sidecar": 7.25},
        ),
        Figure("b", "memory", "MiB", [42.5], goals=(Goal(most=60),)),
        Figure("c", "c", "", note="not measured: server_failed: it ended"),
    ]
    # when they are shown
    lines = {line.strip().partition("  ")[0]: line for line in shown(figures).splitlines() if line.strip()}
    # then
    assert lines["batches"].split() == ["batches", "50,000", "events/s", "SET", "NX", "100,000", "0.500"] + [
        *("≥", "0.6", "no", "7.25", "sidecar")
    ]
    assert lines["article"].split() == ["article", "1,000", "50.00", "≥", "20", "yes"]
    assert lines["webdis"].split() == ["webdis", "-", "-", "≥", "4", "-"]
    assert lines["memory"].split() == ["memory", "42.50", "MiB", "≤", "60", "yes"]
    assert lines["not measured: server_failed: it ended"]
    assert lines["cores 2"]
    assert lines["what it means"]
    # and a program is told the same
    beside: Any = figures[0].as_json()["beside"]
    met = {each["name"]: each["goal"]["met"] for each in beside}
    assert met == {"SET NX": False, "article": True, "webdis": None}
    assert figures[1].as_json()["goal"] == {"least": None, "most": 60, "met": True}
