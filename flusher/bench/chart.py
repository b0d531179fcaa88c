"""Draws growth as SVG: what an event costs at each size, as a ratio to the smallest one. It only makes text."""

from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 64, 330
_TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_COLOURS: Final = ("#0b6e4f", "#b3541e", "#2b4c9b", "#7a2e7a")
_FONT: Final = "font-family='system-ui, sans-serif'"


class Line(NamedTuple):
    """A line of the chart: its name, and for every size the ratio and what it says, such as `9.3 µs`."""

    name: str
    ratios: Sequence[float]
    labels: Sequence[str]


def draw(title: str, under: str, sizes: Sequence[str], lines: Sequence[Line], most: float) -> str:
    """Return the picture: sizes side by side, ratios upwards from 0, and a dashed line at the most that is hoped for.

    `under` is a line of text below it all. Sizes stand at equal distances, in their order.
    """
    top = next((tick for tick in _TICKS if tick >= max(most, *(max(line.ratios) for line in lines)) + 0.05), _TICKS[-1])
    across = [
        _LEFT + 30 + (WIDTH - _LEFT - _RIGHT - 60) * place / max(1, len(sizes) - 1) for place in range(len(sizes))
    ]

    def height(ratio: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(ratio, top) / top

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        _text(_LEFT, 30, title, size=17, weight="600"),
    ]
    for tick in (tick for tick in _TICKS if tick <= top):
        parts.append(_across(height(tick), "#e3e3e3"))
        parts.append(_text(_LEFT - 10, height(tick) + 4, f"{tick:.0%}", anchor="end"))
    parts.append(_across(height(most), "#c0392b", dashes="6 5"))
    parts.append(_text(WIDTH - _RIGHT + 8, height(most) + 4, f"goal: {most:.0%}", colour="#c0392b"))
    parts += [_text(at, _BOTTOM + 22, size, anchor="middle") for at, size in zip(across, sizes, strict=True)]
    parts.append(_text(_LEFT, HEIGHT - 14, under, size=12, colour="#555555"))
    for number, line in enumerate(lines):
        heights = [height(ratio) for ratio in line.ratios]
        parts += _drawn(line, _COLOURS[number], heights, across, below=26 + 18 * number)
        parts.append(_text(WIDTH - _RIGHT + 8, _BOTTOM - 60 + 22 * number, line.name, colour=_COLOURS[number], size=14))
    return "\n".join([*parts, "</svg>", ""])


def _drawn(line: Line, colour: str, heights: Sequence[float], across: Sequence[float], below: float) -> list[str]:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
    parts = [f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2.5'/>"]
    for x, y, label in zip(across, heights, line.labels, strict=True):
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{colour}'/>")
        parts.append(_text(x, y + below, label, anchor="middle", colour=colour, size=12))
    return parts


def _across(y: float, colour: str, dashes: str = "none") -> str:
    return (
        f"<line x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='{colour}' "
        f"stroke-dasharray='{dashes}'/>"
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222222",
    size: int = 13,
    weight: str = "400",
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}' font-size='{size}' "
        f"font-weight='{weight}' {_FONT}>{escape(text)}</text>"
    )
