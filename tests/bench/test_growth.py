"""Growth is measured on servers that are filled, and drawn: tiny sizes here, the same code as for millions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flusher.bench.chart import Line, draw
from flusher.bench.filling import fill_events, fill_keys, kept
from flusher.bench.servers import Stand
from flusher.cli.main import main
from flusher.database import connect
from sidecar.contract.identity import event_key
from tests.bench.test_bench import bench

SVG = "{http://www.w3.org/2000/svg}"


def test_each_size_is_measured_beside_the_smallest_and_drawn_and_nothing_is_left_behind(
    server_dir: Path, tmp_path: Path
) -> None:
    # when growth is measured for a moment, at sizes that take no time to fill
    picture = tmp_path / "growth.svg"
    arguments = ("--growth", "0.004,0.002", "--rounds", "1", "--seconds", "0.1", "--chart", str(picture))
    done = bench(*arguments, "--data-dir", str(server_dir), "--json")
    assert done.returncode == 0, done.stderr
    # then there is a figure for ingest and drain of each, beside the smallest
    figures: list[dict[str, Any]] = json.loads(done.stdout)["figures"]
    assert [(one["row"], one["name"].rpartition(": ")[2]) for one in figures] == [
        ("growth-ingest", "0.002 million"),
        ("growth-drain", "0.002 million"),
        ("growth-ingest", "0.004 million"),
        ("growth-drain", "0.004 million"),
    ]
    for one in figures:
        (beside,) = one["beside"]
        assert (beside["name"], beside["goal"]["most"]) == ("0.002 million", 1.15)
        assert one["value"] > 0
        assert beside["ratio"] > 0
    # and a picture that says the same
    texts = [one.text or "" for one in ElementTree.parse(picture).iter(f"{SVG}text")]
    for one in figures:
        assert f"{one['row'].removeprefix('growth-')} {one['value']:.1f} µs" in texts
    assert list(server_dir.iterdir()) == []


@pytest.mark.parametrize("sizes", ["", "x", "0", "1,-1", "1,,2", "2000", "nan"])
def test_sizes_that_make_no_sense_are_wrong_use(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--growth", sizes])
    assert ended.value.code == 2
    assert "--growth: expected millions from 0.001 to 1000 joined by commas" in capsys.readouterr().err


def test_a_chart_of_anything_else_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--chart", str(tmp_path / "x.svg")]) == 2
    assert "--chart: expected together with --growth" in capsys.readouterr().err


def test_what_is_filled_in_is_like_what_the_programs_leave_behind(server_dir: Path) -> None:
    with Stand(server_dir) as stand:
        stand.fresh()
        # when it is filled twice
        for behind, count in ((0, 5_000), (5_000, 2_500)):
            fill_keys(stand, count)
            fill_events(stand, count, behind)
        # then keys live for a day at most, and are those of the open generation
        there, taken = kept(stand)
        assert 7_400 < there <= 7_510
        assert taken > 7_500 * 100
        with stand.redis_client() as client:
            name = next(client.scan_iter(match="{t1:0}*.*", count=10_000))
            assert len(name) == len(b"{t1:0}") + 8 + 1 + len(event_key("cus_1", "", "e-1"))
        # and usage is what the events add up to, one after the other in time
        with connect(stand.postgres.url) as connection:
            query = (
                "SELECT count(*), sum(units), count(DISTINCT event_time), max(event_time) - min(event_time) FROM events"
            )
            ((events, units, moments, span),) = connection.execute(query).fetchall()
            ((counted, added),) = connection.execute("SELECT sum(events), sum(units) FROM usage").fetchall()
        assert (events, units, moments) == (7_500, 7_500, 7_500)
        assert (counted, added) == (7_500, 7_500)
        assert 640 < span.total_seconds() < 648.1


def heights(picture: str) -> list[list[float]]:
    """Returns the heights of the points of each line, downwards."""
    lines = ElementTree.fromstring(picture).iter(f"{SVG}polyline")
    return [[float(point.partition(",")[2]) for point in line.attrib["points"].split()] for line in lines]


@pytest.mark.parametrize("ratios", [(1.0, 1.1, 1.2), (1.0, 0.5, 7.0), (1.0,)])
def test_what_costs_more_is_drawn_higher(ratios: Sequence[float]) -> None:
    picture = draw("a < b", "under", ["x"] * len(ratios), [Line("one", ratios, ["&"] * len(ratios))], 1.15)
    (drawn,) = heights(picture)
    assert sorted(drawn, reverse=True) == [drawn[place] for place in sorted(range(len(ratios)), key=ratios.__getitem__)]
    assert all(0 < height < 400 for height in drawn)
