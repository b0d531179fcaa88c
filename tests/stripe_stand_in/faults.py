"""What can be made to go wrong: faults for chosen calls, faults by chance, and a limit of calls a second."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Effect = Literal["before", "after"]
Answer = Literal["drop", "forget", "slow"] | int
ANY_ROUTE: Final = "*"

# What chance chooses from: everything that a bad day brings, each before or after the effect where that differs.
BAD_DAY: Final[tuple[tuple[Effect, Answer], ...]] = (
    ("before", "drop"),
    ("after", "drop"),
    ("before", 409),
    ("before", 429),
    ("after", 429),
    ("before", 500),
    ("after", 500),
    ("after", 503),
)


@dataclass
class Fault:
    """Fails calls to `route` (`*`: to any): after `skip` of them, `times` of them, before or after their effect.

    `answer` is a status; "drop" to cut the connection; "forget" to cut it and not to remember the idempotency key, as
    if it had expired at once; or "slow" to wait `seconds`, or until all is healed, and then to answer rightly. As at
    Stripe a 5xx is saved under the idempotency key and replayed; 409 and 429 are not: after an effect they stand for a
    proxy that answers in Stripe's place.
    """

    route: str
    effect: Effect
    answer: Answer = "drop"
    times: int = 1
    skip: int = 0
    seconds: float = 0.0

    def strikes(self, route: str, effect: Effect) -> bool:
        """Whether this call is to fail; counts it."""
        if self.route not in (route, ANY_ROUTE) or effect != self.effect or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Chance:
    """Fails a share of the calls to `routes` (none: to all), each in one of the ways in `kinds`, drawn from a seed.

    The same calls in the same order fail in the same way. `struck` counts what it did.
    """

    share: float
    seed: int = 0
    kinds: Sequence[tuple[Effect, Answer]] = BAD_DAY
    routes: Collection[str] = ()
    struck: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, route: str) -> Fault | None:
        """Return the fault for a call, if it is to fail."""
        if (self.routes and route not in self.routes) or self._random.random() >= self.share:
            return None
        self.struck += 1
        effect, answer = self._random.choice(self.kinds)
        return Fault(route, effect, answer)


@dataclass
class Faults:
    """Every switch of one stand-in."""

    planned: list[Fault] = field(default_factory=list)
    chance: Chance | None = None
    healed: asyncio.Event = field(default_factory=asyncio.Event)

    def strike(self, route: str, effect: Effect, drawn: Fault | None) -> Fault | None:
        """Return what befalls a call before or after its effect; `drawn` is what chance gave it when it came."""
        for fault in self.planned:
            if fault.strikes(route, effect):
                return fault
        return drawn if drawn is not None and drawn.strikes(route, effect) else None

    def draw(self, route: str) -> Fault | None:
        """Let chance decide on a call."""
        return self.chance.draw(route) if self.chance else None


class RateLimit:
    """Lets `per_second` calls pass in any second of `time`."""

    def __init__(self, per_second: int, time: Callable[[], float]) -> None:
        self._time = time
        self._passed: deque[float] = deque(maxlen=per_second)
        self.refused = 0

    def passes(self) -> bool:
        """Whether a call may pass now; counts it."""
        now = self._time()
        if len(self._passed) == self._passed.maxlen and now - self._passed[0] < 1:
            self.refused += 1
            return False
        self._passed.append(now)
        return True
