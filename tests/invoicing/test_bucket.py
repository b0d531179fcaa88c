"""The token bucket, by a clock of its own."""

import pytest

from flusher.invoicing.bucket import TokenBucket


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket(clock: Clock) -> TokenBucket:
    return TokenBucket(10, clock=lambda: clock.now, sleep=clock.sleep)


def took_s(clock: Clock, bucket: TokenBucket, calls: int) -> float:
    before = clock.now
    for _ in range(calls):
        bucket.take()
    return clock.now - before


def test_calls_go_at_the_rate_and_what_was_not_used_is_not_saved_up(clock: Clock, bucket: TokenBucket) -> None:
    assert took_s(clock, bucket, 21) == pytest.approx(2.0)
    clock.sleep(60)
    assert took_s(clock, bucket, 21) == pytest.approx(2.0)


def test_told_to_slow_down_it_waits_and_goes_at_half_the_rate_and_recovers(clock: Clock, bucket: TokenBucket) -> None:
    bucket.take()
    for _ in range(8):  # as many threads are told at once
        bucket.slow_down(3)

    assert took_s(clock, bucket, 1) == pytest.approx(3.0)
    assert took_s(clock, bucket, 5) == pytest.approx(1.0, rel=0.05)
    took_s(clock, bucket, 100)
    assert took_s(clock, bucket, 10) == pytest.approx(1.0)


def test_told_again_and_again_it_still_lets_calls_go(clock: Clock, bucket: TokenBucket) -> None:
    for _ in range(20):
        bucket.slow_down(1)
        took_s(clock, bucket, 1)
    took_s(clock, bucket, 1)

    assert took_s(clock, bucket, 5) <= 10
