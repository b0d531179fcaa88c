"""Usage that counters can't tell, asked of a flusher: as of the last drain."""

import asyncio
import secrets
from typing import Final, cast

import msgspec

from sidecar.contract import keys
from sidecar.contract.usage import (
    QUESTIONS_MAX,
    QUESTIONS_TTL_S,
    WAIT_S,
    UsageFound,
    UsageQuestion,
    decode_answer,
)
from sidecar.errors import Unavailable
from sidecar.link import LINK_ERRORS, Clients

ASKING_MAX: Final = 32
"""Requests that wait for a flusher at once; each looks for its answer every POLL_S."""
POLL_S: Final = 0.02


class Asked:
    """Asks on the connections of `redis`."""

    def __init__(self, redis: Clients) -> None:
        self._redis = redis
        self._asking = 0

    async def usage(self, user_id: str, meter: str | None, start_us: int, end_us: int) -> list[UsageFound]:
        """Return what a user used from `start_us` up to `end_us`, both at the start of windows.

        Of one meter, or of all that counters don't tell. Raises Unavailable `usage_unavailable` where no flusher
        answers in time, or none can, or too many requests wait for one already.
        """
        if self._asking >= ASKING_MAX:
            raise Unavailable("usage_unavailable", f"{ASKING_MAX} requests wait for a flusher already; try again")
        question = UsageQuestion(secrets.token_hex(8), user_id, start_us, end_us, meter)
        self._asking += 1
        try:
            answer = decode_answer(await self._exchange(question))
        except LINK_ERRORS as error:
            raise Unavailable("usage_unavailable", f"Redis does not answer: {error}") from error
        except msgspec.DecodeError as error:
            raise Unavailable("usage_unavailable", f"the flusher's answer can't be read: {error}") from error
        finally:
            self._asking -= 1
        if answer.error:
            raise Unavailable("usage_unavailable", answer.error)
        return answer.rows

    async def _exchange(self, question: UsageQuestion) -> bytes:
        """Put the question to the others, and return its answer."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + WAIT_S
        redis = await self._redis.at(keys.USAGE_QUESTIONS)
        await cast("asyncio.Future[int]", redis.rpush(keys.USAGE_QUESTIONS, msgspec.json.encode(question)))
        await cast("asyncio.Future[str]", redis.ltrim(keys.USAGE_QUESTIONS, -QUESTIONS_MAX, -1))
        await redis.expire(keys.USAGE_QUESTIONS, QUESTIONS_TTL_S)
        while clock() < deadline:
            text = await redis.get(keys.usage_answer(question.id))
            if text is not None:
                return cast("bytes", text)
            await asyncio.sleep(POLL_S)
        raise Unavailable("usage_unavailable", f"no flusher answered within {WAIT_S} s; try again")
