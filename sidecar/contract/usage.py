"""What a sidecar asks the flushers about usage, through Redis, where counters can't tell it, and what they answer.

Questions wait in the list `keys.USAGE_QUESTIONS`, and each is taken by one flusher, which answers under
`keys.usage_answer(id)`. Nobody waits for an answer for longer than `WAIT_S`: a question that is lost is asked again.
"""

from typing import Annotated, Final

import msgspec

from sidecar.contract.event import STRING_BYTES_MAX
from sidecar.contract.meters import WINDOW_US

WAIT_S: Final = 2
QUESTIONS_MAX: Final = 100
"""The oldest ones are dropped beyond it: whoever asked them has waited longest."""
QUESTIONS_TTL_S: Final = 5
ANSWER_TTL_S: Final = 10
ROWS_MAX: Final = 10_000
TIME_US_MAX: Final = 7_258_118_400_000_000  # 2200-01-01

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=STRING_BYTES_MAX)]


class UsageQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a user used of the meters that counters don't tell, or of one, from `start_us` up to `end_us`.

    Times are microseconds since 1970-01-01T00:00:00Z, each at the start of a window. `id` is 16 hex digits that no
    other question has.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    user_id: _Text
    start_us: Annotated[int, msgspec.Meta(ge=0, lt=TIME_US_MAX, multiple_of=WINDOW_US)]
    end_us: Annotated[int, msgspec.Meta(gt=0, le=TIME_US_MAX, multiple_of=WINDOW_US)]
    meter: _Text | None = None

    def __post_init__(self) -> None:
        if self.start_us >= self.end_us:
            raise ValueError("end_us: expected a time behind start_us")


class UsageFound(msgspec.Struct, frozen=True, array_like=True):
    """What a customer's user used of a meter under some dimensions; `units` is decimal text."""

    customer: str
    meter: str
    dimensions: dict[str, str]
    units: str
    events: int


class UsageAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """At most ROWS_MAX rows, as of the last drain; `error` stands instead where it can't be told now."""

    rows: list[UsageFound] = []
    error: str = ""


_decode_question = msgspec.json.Decoder(UsageQuestion).decode
_decode_answer = msgspec.json.Decoder(UsageAnswer).decode


def decode_question(text: bytes) -> UsageQuestion:
    """Return a question from its JSON. Raises msgspec.DecodeError for what is none."""
    return _decode_question(text)


def decode_answer(text: bytes) -> UsageAnswer:
    """Return an answer from its JSON. Raises msgspec.DecodeError for what is none."""
    return _decode_answer(text)
