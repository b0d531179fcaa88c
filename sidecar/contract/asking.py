"""What a sidecar asks the flushers for through Redis: to be registered, or to be let go (rules 6, 7 and 14).

It stands in `keys.ASKING` under the sidecar's producer until a flusher has done it.
"""

import msgspec


class Missing(msgspec.Struct, frozen=True, array_like=True):
    """Records of `producer` on `shard` that its journal no longer has: `first` to `last`.

    `events` is the producer's running count of events behind `last`, `digest` that of its chain there, in hex; None
    where they are not known. What Postgres has of them is not missing: only the flusher can tell.
    """

    producer: str
    shard: int
    first: int
    last: int
    events: int | None = None
    digest: str | None = None


class Asking(msgspec.Struct, frozen=True, omit_defaults=True):
    """`host` and `ledger` say whose journal it is.

    `predecessors`: the producers whose records go on under this one, oldest first, and what of them is `missing`.
    `watermark_us`: no event in its journal was given a time before that, microseconds since the epoch; None for an
    empty one. `leaving`: the sidecar stops and Postgres has all that it journaled; it will not accept anything before
    it has asked again.
    """

    host: str
    ledger: str
    predecessors: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    watermark_us: int | None = None
    leaving: bool = False
