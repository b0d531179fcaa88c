"""What `taximeter verify` asks the sidecars through Redis, and what they answer (rule 11).

The question goes to `keys.PROOF_QUESTION`, each sidecar answers in `keys.proof_answers(id)` under its producer.
"""

from typing import Final

import msgspec

QUESTION_TTL_S: Final = 120
ANSWER_TTL_S: Final = 300


class Question(msgspec.Struct, frozen=True):
    """`positions`: for `<producer>/<shard>` the higher one of Redis's and Postgres's positions, as text."""

    id: str
    positions: dict[str, str]


class ShardAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a journal says of one shard, read again from disk: positions and running counts in their text forms.

    `at` is the chain's position at the sequence that was asked for, `head` its last one; `error` stands instead.
    """

    shard: int
    at: str = ""
    at_running: str = ""
    head: str = ""
    head_running: str = ""
    error: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What one sidecar answers."""

    producer: str
    shards: list[ShardAnswer]
