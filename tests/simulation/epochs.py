"""An epoch in Redis, read from its bytes by code of our own: its counters against what its stream adds up to."""

import struct
from collections import defaultdict
from decimal import Decimal
from typing import Any

from tests.contract.independent import unpack

VOID = "taximeter.void"


def differing_users(stream: Any, counters: Any) -> set[str]:
    """Returns the users whose counters are not what the stream adds up to, read here from the bytes."""
    wanted: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for _, flat in stream or ():
        entry = dict(zip(flat[::2], flat[1::2], strict=True))
        if b"o" in entry:
            continue
        taken = {int(place[1:]) for place in entry[b"t"].split(b",") if place}
        contents, content_of = unpack(entry[b"b"])[6:8]
        for place, number in enumerate(struct.unpack(f">{len(content_of) // 2}H", content_of)):
            if place not in taken:
                user_id, _, event_type, units, _ = contents[number]
                if event_type == VOID:
                    continue
                figure = wanted[user_id, event_type]
                figure[0] += 1
                figure[1] += int(Decimal(units) * 1_000_000_000)
    there: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for name, value in counters.items() if isinstance(counters, dict) else ():
        user_id, meter, _, _, suffix = name.decode().split("\x1f")
        if meter == "calls" or value == b"junk":
            continue
        if suffix == "n":
            there[user_id, meter][0] += int(value)
        else:
            there[user_id, meter][1] += int(value) * 1_000_000_000 ** int(suffix)
    differing = {name for name in wanted.keys() | there.keys() if wanted[name] != there[name]}
    return {user_id for user_id, _ in differing}
