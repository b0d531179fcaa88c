"""One deadline for many futures: who is late gets None, who is done is let go."""

import asyncio
from typing import Any

from sidecar.deadline import Deadline
from tests.sidecar.support import until


def a_future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


async def test_what_is_not_done_in_time_becomes_none_and_what_is_keeps_its_result() -> None:
    # given futures under a deadline, one of them put there later
    deadline = Deadline(0.05)
    first, second, third = a_future(), a_future(), a_future()
    deadline.put(first)
    deadline.put(second)
    await asyncio.sleep(0.02)
    deadline.put(third)
    # when one is done in time, and the deadline of all has passed
    second.set_result("in time")
    await until(third.done)
    # then the others have None, the earlier one before the later one
    assert (first.result(), second.result(), third.result()) == (None, "in time", None)


async def test_after_a_pause_the_next_future_has_its_own_deadline() -> None:
    deadline = Deadline(0.01)
    early = a_future()
    deadline.put(early)
    await until(early.done)
    await asyncio.sleep(0.05)  # no timer is running by now
    late = a_future()
    deadline.put(late)
    assert not late.done()
    await until(late.done)
    assert late.result() is None


async def test_a_cancelled_future_is_passed_over() -> None:
    deadline = Deadline(0.01)
    cancelled, late = a_future(), a_future()
    deadline.put(cancelled)
    deadline.put(late)
    cancelled.cancel()
    await until(late.done)
    assert cancelled.cancelled()


async def test_futures_that_are_done_are_not_kept() -> None:
    deadline = Deadline(60)
    for _ in range(1_000):
        done = a_future()
        deadline.put(done)
        done.set_result(())
    assert deadline.waiting == 1
