"""When a period may be closed."""

from datetime import UTC, datetime, timedelta

from flusher.invoicing.settle import Clock, NotYet, Producer, Settled, settlement

END = datetime(2025, 8, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def producer(watermark: datetime | None) -> Producer:
    return Producer("p1", "host-a", watermark)


def test_a_period_is_settled_when_every_watermark_and_postgres_have_passed_its_end() -> None:
    clock = Clock(END + SECOND, (producer(END), producer(END + HOUR)))

    assert settlement(END, clock, HOUR) == Settled()


def test_without_producers_postgress_clock_alone_settles() -> None:
    assert settlement(END, Clock(END, ()), HOUR) == Settled()


def test_a_period_is_open_until_postgress_clock_has_passed_its_end() -> None:
    found = settlement(END, Clock(END - SECOND, (producer(END + HOUR),)), HOUR)

    assert isinstance(found, NotYet)
    assert found.reason == "period_open"


def test_a_producer_that_is_behind_holds_the_period_until_the_window_has_passed() -> None:
    behind = (producer(END - SECOND), Producer("p2", "host-b", END))

    waiting = settlement(END, Clock(END + HOUR - SECOND, behind), HOUR)
    closed = settlement(END, Clock(END + HOUR, behind), HOUR)

    assert isinstance(waiting, NotYet)
    assert waiting.reason == "producers_behind"
    assert "p1 on host-a (at 2025-07-31T23:59:59Z)" in waiting.detail
    assert "2025-08-01T01:00:00Z" in waiting.detail
    assert closed == Settled(without=("p1",))


def test_a_producer_without_a_position_on_some_shard_has_not_passed() -> None:
    found = settlement(END, Clock(END + SECOND, (producer(None),)), HOUR)

    assert isinstance(found, NotYet)
    assert "at nothing" in found.detail
