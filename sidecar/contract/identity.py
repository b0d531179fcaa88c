"""What makes an event the same event: keys, fingerprints, digests and the shard (design 2.2).

Every hash is BLAKE2b over length-prefixed parts, so that ("a-b", "c") and ("a", "b-c") differ, with a
personalisation per use, so that a hash of one kind is never one of another.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

KEY_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 8
DIGEST_BYTES: Final = 16
BEGUN_MAX: Final = 4_096  # users and requests whose part of a hash is kept

# A hasher a use, copied for every hash: an event takes two, and setting one up costs more than hashing with it.
_EVENT: Final = blake2b(digest_size=KEY_BYTES, person=b"event")
_VOID: Final = blake2b(digest_size=KEY_BYTES, person=b"void")
_INDEXED: Final = blake2b(digest_size=KEY_BYTES, person=b"indexed")
_CLAIM: Final = blake2b(digest_size=KEY_BYTES, person=b"claim")
_FINGERPRINT: Final = blake2b(digest_size=FINGERPRINT_BYTES, person=b"fingerprint")
_BODY: Final = blake2b(digest_size=DIGEST_BYTES, person=b"body")
_SHARD: Final = blake2b(digest_size=8, person=b"shard")
_CHAIN: Final = blake2b(digest_size=DIGEST_BYTES, person=b"chain")


def _hash(hasher: blake2b, *parts: bytes) -> bytes:
    copied = hasher.copy()
    for part in parts:
        copied.update(part)
    return copied.digest()


def _prefixed(*parts: str) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join([piece for part in encoded for piece in (len(part).to_bytes(4, "big"), part)])


@lru_cache(maxsize=BEGUN_MAX)
def event_keys_begun(user_id: str, source: str) -> blake2b:
    """Return what the keys of a user's events from a source have in common, half of the work of each: to be copied."""
    hasher = _EVENT.copy()
    hasher.update(_prefixed(user_id, source))
    return hasher


def event_key_of(begun: blake2b, event_id: str) -> bytes:
    """Return the 16 bytes that identify the event with this id, given `event_keys_begun` of its user and source."""
    hasher = begun.copy()
    encoded = event_id.encode()
    hasher.update(len(encoded).to_bytes(4, "big") + encoded)
    return hasher.digest()


@lru_cache(maxsize=BEGUN_MAX)
def _indexed_under(claim_key: bytes) -> blake2b:
    hasher = _INDEXED.copy()
    hasher.update(claim_key)
    return hasher


def event_key(user_id: str, source: str, event_id: str) -> bytes:
    """Return the 16 bytes that identify an event with an id: (`user_id`, `source`, `id`)."""
    return event_key_of(event_keys_begun(user_id, source), event_id)


def void_key(event_key: bytes, time_us: int) -> bytes:
    """Return the 16 bytes that identify the void of the event with this key at this time, microseconds.

    The time is a part: a void that named a wrong one cancels nothing, and is in nobody's way.
    """
    return _hash(_VOID, event_key, time_us.to_bytes(8, "big", signed=True))


def indexed_key(claim_key: bytes, index: int) -> bytes:
    """Return the 16 bytes of the event at `index` of a request under an Idempotency-Key, on the claim's shard."""
    hasher = _indexed_under(claim_key).copy()
    hasher.update(index.to_bytes(4, "big"))
    return hasher.digest()


def claim_key(idempotency_key: str, shard: int) -> bytes:
    """Return the 16 bytes of a request's share on `shard`; with shard -1, of the whole request."""
    return _hash(_CLAIM, _prefixed(idempotency_key, str(shard)))


def fingerprint(payload: bytes) -> bytes:
    """Return the 8 bytes by which another payload under the same identity is told apart."""
    hasher = _FINGERPRINT.copy()
    hasher.update(payload)
    return hasher.digest()


def body_digest(content_type: str, body: bytes) -> bytes:
    """Return the 16 bytes of a whole request body, as read under its media type."""
    return _hash(_BODY, _prefixed(content_type), body)


def shard_of(user_id: str, shards: int) -> int:
    """Return the shard, 0 to `shards` - 1, that all events of the user go to. Stable for ever."""
    if shards == 1:
        return 0
    return int.from_bytes(_hash(_SHARD, user_id.encode()), "big") % shards


def chain_start(ledger: str, producer: str, shard: int) -> bytes:
    """Return the digest before the first batch of a producer on a shard (rule 1)."""
    return _hash(_CHAIN, _prefixed(ledger, producer, str(shard)))


def chain_next(previous: bytes, record: bytes) -> bytes:
    """Return the digest of the chain after `record`, given the digest before it (rule 1)."""
    return _hash(_CHAIN, previous, record)
