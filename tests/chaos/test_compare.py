"""The comparison: whatever is lost, counted twice, changed or made up is found."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from flusher.chaos.compare import Book, Compared
from flusher.chaos.notes import Note, Notes, read_notes
from flusher.chaos.report import Report
from flusher.chaos.traffic import Batch, batches
from sidecar.contract.units import format_units, from_text

Events = dict[str, tuple[int, str]]
Usage = dict[tuple[str, str, str], tuple[str, int]]
SENT: list[Batch] = list(islice(batches(1, "run", datetime(2025, 7, 21, 9, 34, tzinfo=UTC)), 12))
UNANSWERED = 11  # the last batch: nobody knows


def world() -> tuple[list[Note], Events, Usage]:
    """Returns the notes of a run, and what Postgres has where all is well and the unanswered batch was lost."""
    notes = [Note(sending=batch) for batch in SENT]
    notes += [Note(acknowledged=batch.number) for batch in SENT if batch.number != UNANSWERED]
    events: Events = {}
    usage: Usage = {}
    for batch in SENT[:UNANSWERED]:
        for event in batch.events:
            events[event.properties["n"]] = (1, str(Decimal(event.units)))
            hour = f"{(event.timestamp or '2025-07-21T12')[:13]}:00:00Z"
            add(usage, (event.user_id, event.event_type, hour), event.units, 1)
    return notes, events, usage


def add(usage: Usage, place: tuple[str, str, str], units: str, events: int) -> None:
    old, count = usage.get(place, ("0", 0))
    usage[place] = (format_units(from_text(old) + from_text(units)), count + events)


def compare(notes: list[Note], events: Events, usage: Usage) -> Compared:
    return Book(notes).compare(
        ((number, *counted) for number, counted in events.items()),
        ((*place, *figure) for place, figure in usage.items()),
    )


def test_a_run_in_which_all_is_well_has_no_violation() -> None:
    compared = compare(*world())
    assert (compared.violations, compared.differences) == (0, [])
    assert (compared.acknowledged, compared.unanswered, compared.unanswered_counted) == (550, 50, 0)
    assert compared.sums > 50


def test_what_was_not_answered_may_count_once() -> None:
    notes, events, usage = world()
    for event in SENT[UNANSWERED].events:
        events[event.properties["n"]] = (1, event.units)
        hour = f"{(event.timestamp or '2025-07-21T12')[:13]}:00:00Z"
        add(usage, (event.user_id, event.event_type, hour), event.units, 1)
    compared = compare(notes, events, usage)
    assert (compared.violations, compared.unanswered_counted) == (0, 50)


def lost(events: Events, usage: Usage) -> None:
    events.pop("7")


def doubled(events: Events, usage: Usage) -> None:
    events["7"] = (2, "0")


def unanswered_doubled(events: Events, usage: Usage) -> None:
    events[f"{UNANSWERED * 50}"] = (2, "0")


def changed(events: Events, usage: Usage) -> None:
    events["7"] = (1, "17")


def made_up(events: Events, usage: Usage) -> None:
    events["99999"] = (1, "1")


def row_gone(events: Events, usage: Usage) -> None:
    usage.popitem()


def row_more(events: Events, usage: Usage) -> None:
    place = next(iter(usage))
    add(usage, place, "0.000000001", 0)


def row_moved(events: Events, usage: Usage) -> None:
    place = next(place for place in usage if place[1] == "chaos_timed")
    usage[place[0], place[1], "2025-01-01T00:00:00Z"] = usage.pop(place)


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lost, "event 7 was acknowledged, and is counted 0 times"),
        (doubled, "event 7 was acknowledged, and is counted 2 times"),
        (unanswered_doubled, "event 550 was sent and never answered, and is counted 2 times"),
        (changed, "event 7 is counted with 17 units, and was sent with "),
        (made_up, "event '99999' is counted, and the client never sent it"),
        (row_gone, "usage of chaos-run-"),
        (row_more, "usage of chaos-run-"),
        (row_moved, "in 2025-01-01T00:00:00Z"),
    ],
)
def test_every_difference_is_found(plant: Callable[[Events, Usage], None], said: str) -> None:
    notes, events, usage = world()
    plant(events, usage)
    compared = compare(notes, events, usage)
    assert compared.violations >= 1
    assert any(said in difference for difference in compared.differences), compared.differences


def test_a_report_of_a_violation_says_what_differs_and_how_to_see_it_again() -> None:
    notes, events, usage = world()
    lost(events, usage)
    report = Report(9, 300, 2000, 5, "somewhere", compared=compare(notes, events, usage), proof={"ok": True})
    assert not report.ok
    assert "2 VIOLATIONS:\n  event 7 was acknowledged, and is counted 0 times\n" in report.text()
    assert "Again: taximeter chaos --seed 9 --seconds 300 --rate 2000 --every 5" in report.text()
    assert report.as_json()["ok"] is False


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    written = [Note(sending=SENT[0]), Note(acknowledged=0)]
    for note in written:
        notes.add(note)
    notes.close()
    assert list(read_notes(tmp_path / "notes")) == written
