"""Bytes and values: the same back and forth, and nothing else is taken for them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.codec import (
    CODEC_VERSION,
    Batch,
    Claim,
    Position,
    Running,
    decode_batch,
    decode_position,
    decode_running,
    encode_batch,
)
from sidecar.contract.codes import TaximeterError
from sidecar.contract.event import Event, Identity
from sidecar.contract.scripts import decode_taken
from tests.contract.independent import pack, unpack
from tests.contract.values import a_batch, an_event, nanos, texts

events = st.builds(
    Event,
    key=st.binary(min_size=16, max_size=16),
    fingerprint=st.binary(min_size=8, max_size=8),
    identity=st.sampled_from(Identity),
    index=st.integers(0, 9_999),
    time_us=st.integers(-(2**53), 2**53),
    user_id=texts,
    source=st.just("") | texts,
    id=st.none() | texts,
    event_type=texts,
    units=st.integers(-(10**15) + 1, 10**15 - 1) | st.just("-0.000000001") | st.just("999999999999999.999999999"),
    properties=st.just("") | st.just('{"region":"eu"}'),
)
claims = st.builds(
    Claim,
    key=st.binary(min_size=16, max_size=16),
    digest=st.binary(min_size=16, max_size=16),
    first=st.integers(0, 9_999),
    count=st.integers(0, 9_999),
)
batches = st.builds(
    Batch,
    version=st.just(CODEC_VERSION),
    shard=st.integers(0, 1023),
    revision=st.integers(0, 2**31),
    accepted_at_us=st.integers(0, 2**53),
    watermark_us=st.integers(0, 2**53),
    claims=st.lists(claims, max_size=3).map(tuple),
    events=st.lists(events, max_size=5).map(tuple),
)
digests = st.binary(min_size=16, max_size=16)


@given(batches)
def test_a_batch_survives_its_bytes(batch: Batch) -> None:
    record = encode_batch(batch)
    assert decode_batch(record) == batch
    assert encode_batch(decode_batch(record)) == record


@given(batches)
def test_another_msgpack_reads_the_same(batch: Batch) -> None:
    version, shard, revision, accepted_at_us, watermark_us, found_claims, found_events = unpack(encode_batch(batch))
    assert (version, shard, revision, accepted_at_us, watermark_us) == (
        batch.version,
        batch.shard,
        batch.revision,
        batch.accepted_at_us,
        batch.watermark_us,
    )
    assert found_claims == tuple((one.key, one.digest, one.first, one.count) for one in batch.claims)
    assert found_events == tuple(msgspec.structs.astuple(event) for event in batch.events)


@pytest.mark.parametrize("version", [0, 2, 127, 128, 255, 2**40])
def test_another_version_is_never_taken_for_ours(version: int) -> None:
    record = pack([version, 0, 0, 0, 0, [], [], "what a later version added"])
    with pytest.raises(TaximeterError) as caught:
        decode_batch(record)
    assert caught.value.code == "codec_unknown"


@pytest.mark.parametrize(
    "record",
    [b"", b"\x97", b"\x90", b"garbage", b"\x97\x01", pack([1, 0]), pack({"version": 1})],
)
def test_bytes_that_are_no_batch_are_refused(record: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, TaximeterError)):
        decode_batch(record)


@given(batches, st.data())
def test_a_cut_batch_is_refused(batch: Batch, data: st.DataObject) -> None:
    record = encode_batch(batch)
    at = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(msgspec.DecodeError):
        decode_batch(record[:at])


def test_an_empty_batch_carries_its_watermark() -> None:
    batch = a_batch(())
    assert decode_batch(encode_batch(batch)).watermark_us == batch.watermark_us
    assert len(encode_batch(batch)) < 32


@given(st.integers(0, 2**63), digests)
def test_a_position_survives_its_text(sequence: int, digest: bytes) -> None:
    position = Position(sequence, digest)
    assert decode_position(position.encode()) == position
    assert decode_position(position.encode().encode()) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1:",
        ":" + "0" * 32,
        "1:" + "0" * 31,
        "1:" + "0" * 33,
        "1:" + "0" * 30,
        "-1:" + "0" * 32,
        "x:" + "0" * 32,
    ]
    + ["1:" + "g" * 32, "1:" + "0" * 32 + ":", "1 :" + "0" * 32, "1:" + "0" * 16 + " " + "0" * 16, "1_0:" + "0" * 32]
    + ["01:" + "0" * 32, "1:" + "A" * 32, "+1:" + "0" * 32],
)
def test_text_that_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_position(text)


@given(st.integers(0, 2**63), st.integers(-(10**40), 10**40))
def test_a_running_count_survives_its_text(count: int, sum_: int) -> None:
    running = Running(count, sum_)
    assert decode_running(running.encode()) == running


@given(st.lists(nanos, max_size=20))
def test_a_running_count_adds_up_without_losing_a_digit(values: list[int]) -> None:
    running = Running(0, 0)
    for value in values:
        running = decode_running(running.plus(1, value).encode())
    assert running == Running(len(values), sum(values))


@pytest.mark.parametrize("text", ["", "1", "x 1", "1 x", "1 NaN", "1 0.0000000001"])
def test_text_that_is_no_running_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_running(text)


def test_places_that_were_taken_for_repeats_are_read() -> None:
    assert decode_taken("") == ((), ())
    assert decode_taken("d0") == ((0,), ())
    assert decode_taken("c12,d3,d400,c5") == ((3, 400), (12, 5))


def test_a_record_is_small() -> None:
    # the record is stored twice and sent once: a growth has to be wanted
    one, many = (len(encode_batch(a_batch([an_event(f"e-{n}") for n in range(count)]))) for count in (1, 1001))
    assert (many - one) / 1000 < 75
