"""Records of the quarantine without what somebody said in them. Pure.

The record of a batch stays one: its other events can still be retried, and its figures are the same.
"""

from collections.abc import Mapping

import msgspec

from sidecar.contract.codec import Batch, decode_batch, encode_batch, numbers
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Identity


def read_record(record: bytes) -> Batch | None:
    """Return the batch of a record, or None where it can't be read."""
    try:
        return decode_batch(record)
    except (msgspec.DecodeError, TaximeterError):
        return None


def concerns(batch: Batch, place: int | None, users: Mapping[str, str]) -> bool:
    """Whether what is quarantined of a record, the event at `place` or all of it, is of one of the users."""
    contents = batch.contents if place is None else (batch.contents[numbers("H", batch.content_of)[place]],)
    return any(content.user_id in users for content in contents)


def without(batch: Batch, tokens: Mapping[str, str]) -> bytes:
    """Return the record with tokens for users, and without sources, properties and ids of their events."""
    erased = [content.user_id in tokens for content in batch.contents]
    contents = tuple(
        msgspec.structs.replace(content, user_id=tokens[content.user_id], source="", properties="") if gone else content
        for content, gone in zip(batch.contents, erased, strict=True)
    )
    named = (
        erased[number]
        for number, identity in zip(numbers("H", batch.content_of), batch.identities, strict=True)
        if identity <= Identity.CLAIMED
    )
    ids = tuple("" if gone else name for name, gone in zip(batch.ids, named, strict=True))
    return encode_batch(msgspec.structs.replace(batch, contents=contents, ids=ids))
