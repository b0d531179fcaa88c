"""Identities: the same for ever for the same event, different for every other one."""

from collections import Counter as Tally
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract import identity
from sidecar.contract.identity import (
    body_digest,
    chain_next,
    chain_start,
    claim_key,
    event_key,
    fingerprint,
    indexed_key,
    shard_of,
    void_key,
)
from tests.contract.values import texts


def by_hand(person: bytes, size: int, *parts: str, tail: bytes = b"") -> bytes:
    """Returns the hash as README.md describes it."""
    prefixed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return blake2b(prefixed + tail, digest_size=size, person=person).digest()


@pytest.mark.parametrize(
    ("found", "golden"),
    [
        (event_key("cus_123456", "", "e-1"), "6f19f06feb250a9bc925a2607244f3a0"),
        (indexed_key(b"k" * 16, 7), "a4df698341227e695cc9ab573277e046"),
        (void_key(b"k" * 16, -7), "a2df9ef4523d541198438e24b50b413b"),
        (claim_key("key-1", 0), "141d3416b88359211afb0dc4969da65b"),
        (claim_key("key-1", -1), "e459cda7a5f16c1719e26f13230b5b20"),
        (fingerprint(b"payload"), "9262d53fc73f5793"),
        (body_digest("application/json", b"{}"), "928f3f0f4e574848e3af0a8e573b9eb5"),
        (chain_start("ledger", "producer", 0), "0b881b2c8c248049c05aacc2eb129dc6"),
        (chain_next(b"d" * 16, b"record"), "678cb0261cdc8d60259b8318b0371b0a"),
    ],
)
def test_hashes_are_what_they_have_always_been(found: bytes, golden: str) -> None:
    assert found.hex() == golden


def test_hashes_are_built_as_the_readme_says() -> None:
    assert event_key("u", "s", "i") == by_hand(b"event", 16, "u", "s", "i")
    assert indexed_key(b"k" * 16, 7) == by_hand(b"indexed", 16, tail=b"k" * 16 + b"\0\0\0\7")
    assert void_key(b"k" * 16, -7) == by_hand(b"void", 16, tail=b"k" * 16 + b"\xff" * 7 + b"\xf9")
    assert claim_key("k", 3) == by_hand(b"claim", 16, "k", "3")
    assert fingerprint(b"p") == by_hand(b"fingerprint", 8, tail=b"p")
    assert body_digest("t", b"b") == by_hand(b"body", 16, "t", tail=b"b")
    assert chain_start("l", "p", 2) == by_hand(b"chain", 16, "l", "p", "2")
    assert chain_next(b"d" * 16, b"r") == by_hand(b"chain", 16, tail=b"d" * 16 + b"r")
    assert shard_of("u", 7) == int.from_bytes(blake2b(b"u", digest_size=8, person=b"shard").digest(), "big") % 7


@pytest.mark.parametrize(
    ("user_id", "shards"),
    [
        ("cus_123456", {1: 0, 2: 0, 4: 2, 16: 14, 64: 30, 1024: 30}),
        ("cus_1", {1: 0, 2: 0, 4: 0, 16: 4, 64: 4, 1024: 772}),
        ("", {1: 0, 2: 1, 4: 1, 16: 1, 64: 33, 1024: 545}),
        ("ünïcode-ユーザー", {1: 0, 2: 0, 4: 2, 16: 14, 64: 30, 1024: 478}),
    ],
)
def test_a_user_stays_on_its_shard_for_ever(user_id: str, shards: dict[int, int]) -> None:
    assert {count: shard_of(user_id, count) for count in shards} == shards


@given(texts, st.integers(1, 1024))
def test_every_user_has_a_shard(user_id: str, shards: int) -> None:
    assert 0 <= shard_of(user_id, shards) < shards
    assert shard_of(user_id, shards) == shard_of(user_id, shards)


def test_users_spread_evenly_over_shards() -> None:
    tally = Tally(shard_of(f"cus_{number}", 16) for number in range(16_000))
    assert len(tally) == 16
    assert min(tally.values()) > 800
    assert max(tally.values()) < 1_200


def test_parts_that_read_alike_when_joined_are_different_identities() -> None:
    assert event_key("a-b", "c", "d") != event_key("a", "b-c", "d")
    assert event_key("ab", "", "c") != event_key("a", "b", "c")
    assert event_key("a", "", "bc") != event_key("a", "b", "c")
    assert event_key("", "a", "") != event_key("a", "", "")
    assert claim_key("a1", 1) != claim_key("a", 11)
    assert chain_start("ab", "c", 0) != chain_start("a", "bc", 0)
    assert body_digest("a", b"bc") != body_digest("ab", b"c")


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_identities_are_equal_only_where_every_part_is(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (event_key(*one) == event_key(*other)) == (one == other)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 65_534), st.integers(0, 65_534))
def test_indices_of_a_request_are_different_events(key: bytes, one: int, other: int) -> None:
    assert (indexed_key(key, one) == indexed_key(key, other)) == (one == other)


def test_hashes_of_one_use_are_never_those_of_another() -> None:
    # the same bytes go into each
    data = (1).to_bytes(4, "big") + b"k"
    found = [
        blake2b(data, digest_size=8, person=person).digest()
        for person in (b"event", b"indexed", b"claim", b"fingerprint", b"body", b"chain", b"shard")
    ]
    assert len(set(found)) == len(found)
    assert claim_key("k", 0) != event_key("k", "0", "")[: identity.KEY_BYTES]


def test_lengths_are_those_of_the_columns_and_keys() -> None:
    assert len(event_key("u", "s", "i")) == len(claim_key("k", 0)) == len(indexed_key(b"", 0)) == identity.KEY_BYTES
    assert len(fingerprint(b"")) == identity.FINGERPRINT_BYTES
    assert len(body_digest("", b"")) == len(chain_start("", "", 0)) == identity.DIGEST_BYTES
    assert (identity.KEY_BYTES, identity.FINGERPRINT_BYTES, identity.DIGEST_BYTES) == (16, 8, 16)


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=6), st.integers(0, 5))
def test_a_chain_tells_the_order_and_every_byte_of_what_came_before(records: list[bytes], at: int) -> None:
    def head(chain: list[bytes]) -> bytes:
        digest = chain_start("ledger", "producer", 0)
        for record in chain:
            digest = chain_next(digest, record)
        return digest

    changed = [*records, b"more"] if at >= len(records) else [*records[:at], records[at] + b"!", *records[at + 1 :]]
    assert head(changed) != head(records)
    if len(set(records)) > 1:
        assert (head(records[::-1]) == head(records)) == (records[::-1] == records)
