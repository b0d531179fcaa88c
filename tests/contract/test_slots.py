"""Which server has which key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import read_redis_url
from sidecar.contract.slots import SLOTS, Finder, address_of, slot_of, urls_of

# What three primaries answer: the second one's host is the one that was asked, the third one's is not known.
REPLY = [
    [0, 5460, [b"10.0.0.1", 6379, b"a", []], [b"10.0.0.4", 6379, b"d", []]],
    [5461, 10922, [None, 6380, b"b", []]],
    [10923, 16383, [b"?", 6379, b"c", []]],
]


@given(st.lists(st.sampled_from([b"{", b"}", b"a", b"\x00", b"key"]), max_size=8).map(b"".join))
def test_a_slot_is_what_the_client_library_says(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


def test_all_keys_of_a_shard_are_in_one_slot() -> None:
    names: list[bytes | str] = [
        keys.state(3),
        *keys.open_epoch(3, "generati"),
        *keys.sealed_epoch(3, "generati", "0" * 16),
        keys.identity_prefix(3, "generati") + b"}{" * 8,
        keys.staged_state(3, "generati"),
        keys.totals(3, "generati", "{cus}", 20_000),
    ]
    assert {slot_of(name) for name in names} == {slot_of("t1:3")}


def test_what_belongs_to_no_shard_is_in_one_slot_so_that_a_replica_has_a_beginning_of_what_was_told() -> None:
    names = {keys.LEDGER, keys.METERS, keys.USERS, keys.ASKING, keys.PROOF_QUESTION, keys.proof_answers("q")}
    assert {slot_of(name) for name in names} == {slot_of("t1")}
    assert not any(keys.generation_of(name.encode()) for name in names)


def test_a_url_may_name_several_hosts_and_each_keeps_what_is_around_it() -> None:
    named = "rediss://user:p%40ss@a:1,b:2,[::1]:3/0?ssl_ca_certs=ca.pem"
    expected = [f"rediss://user:p%40ss@{host}/0?ssl_ca_certs=ca.pem" for host in ("a:1", "b:2", "[::1]:3")]
    assert list(urls_of(named)) == expected
    assert [address_of(url) for url in expected] == ["a:1", "b:2", "[::1]:3"]
    assert urls_of("unix:///run/a,b.sock") == ("unix:///run/a,b.sock",)
    assert address_of("unix:///run/a.sock") == "/run/a.sock"
    assert read_redis_url(named) == named
    with pytest.raises(ValueError, match="can't be read"):
        read_redis_url("redis://a:1,b:none")


def test_what_a_cluster_says_is_where_the_keys_are() -> None:
    finder = Finder("redis://user:secret@10.0.0.9:6379/0?timeout=3")
    (asked,) = finder.candidates()
    servers = finder.learn(asked, REPLY)
    assert servers.cluster
    first, second = (f"redis://user:secret@{host}/0?timeout=3" for host in ("10.0.0.1:6379", "10.0.0.9:6380"))
    assert servers.urls == (first, second)
    assert servers.url_of("t1:2") is not None
    found = {servers.url_of(f"t1:{shard}") for shard in range(100)}
    assert found == {first, second, None}
    assert servers.uncovered == SLOTS - 10_923


def test_a_server_of_a_socket_tells_the_addresses_of_its_cluster() -> None:
    servers = Finder("unix:///run/redis.sock").learn("unix:///run/redis.sock", REPLY)
    assert servers.urls == ("redis://10.0.0.1:6379", "redis://127.0.0.1:6380")


def test_a_server_that_is_no_cluster_has_all_keys() -> None:
    servers = Finder("unix:///run/redis.sock").learn("unix:///run/redis.sock", None)
    assert (servers.cluster, servers.uncovered) == (False, 0)
    assert {servers.url_of(f"t1:{shard}") for shard in range(100)} == {"unix:///run/redis.sock"}


def test_hosts_that_are_no_cluster_are_refused_and_passwords_not_shown() -> None:
    finder = Finder("redis://:secret@a:1,b:2")
    with pytest.raises(TaximeterError, match="config_invalid: the Redis URL names several hosts") as raised:
        finder.learn("redis://:secret@a:1", None)
    assert "secret" not in str(raised.value)


def test_every_server_that_is_known_is_asked_in_turn() -> None:
    finder = Finder("redis://a:1,b:2")
    finder.learn("redis://a:1", REPLY)
    known = {"redis://a:1", "redis://b:2", "redis://10.0.0.1:6379", "redis://10.0.0.4:6379", "redis://a:6380"}
    rounds = [finder.candidates() for _ in known]
    assert all(set(each) == known for each in rounds)
    assert {each[0] for each in rounds} == known
