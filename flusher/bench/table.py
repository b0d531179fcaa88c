"""The one table of a benchmark."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from flusher.bench.figures import Figure, Goal

_DIGITS_FROM: Final = 100  # from here on nobody needs a fraction


def render(figures: Iterable[Figure], machine: Mapping[str, object], legend: Iterable[str]) -> Group:
    """Return what a person reads: where it was measured, a line for every pair, and what the lines mean."""
    table = Table(box=None, pad_edge=False)
    for heading in ("measure", "ours", "unit", "beside", "its", "its CPU", "ratio", "goal", "met", "µs of CPU"):
        right = heading in {"ours", "its", "its CPU", "ratio"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "measure")
    for figure in figures:
        _add(table, figure)
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    return Group(Text(where, style="bold"), Text(), table, Text(), *(Text(line, style="dim") for line in legend))


def number(value: float | None) -> str:
    """Return a figure with as many digits as mean something."""
    if value is None:
        return "-"
    if abs(value) >= _DIGITS_FROM:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _add(table: Table, figure: Figure) -> None:
    own = figure.goal("")
    costs = " + ".join(f"{number(cost)} {name}" for name, cost in figure.cpu_us.items())
    head = [figure.name, number(figure.value), figure.unit]
    if not figure.beside or own is not None:
        table.add_row(*head, "", "", "", "", *_judged(own, figure.value), costs)
        head, costs = ["", "", ""], ""
    for name, values in figure.beside.items():
        ratio = figure.ratio(name)
        its = number(statistics.median(values)) if values else "-"
        its_cost = number(figure.beside_cpu_us[name]) if name in figure.beside_cpu_us else ""
        table.add_row(*head, name, its, its_cost, number(ratio), *_judged(figure.goal(name), ratio), costs)
        head, costs = ["", "", ""], ""
    if figure.note:
        table.add_row("", "", "", Text(figure.note, style="dim"))


def _judged(goal: Goal | None, value: float | None) -> tuple[str, Text]:
    """Return the goal, and whether the value meets it."""
    if goal is None:
        return "", Text("")
    if value is None:
        return goal.text, Text("-")
    return goal.text, Text("yes", style="green") if goal.met(value) else Text("no", style="yellow")
