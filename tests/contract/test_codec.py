"""Bytes and values: the same back and forth, and nothing else is taken for them."""

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.codec import (
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
from sidecar.contract.columns import Columns
from sidecar.contract.event import Content, Event, Identity, payload_fingerprint
from sidecar.contract.identity import indexed_key
from sidecar.contract.scripts import decode_taken
from tests.contract.independent import pack, unpack
from tests.contract.values import a_batch, an_event, nanos, texts

identities = st.sampled_from(Identity)
sixteen = st.binary(min_size=16, max_size=16)


@st.composite
def an_event_of(draw: st.DrawFn, identity: Identity, claim_key: bytes) -> Event:
    with_id = identity <= Identity.CLAIMED
    index = draw(st.integers(0, 9_999))
    event_type, units, properties = (
        draw(texts),
        draw(st.integers(-(10**15) + 1, 10**15 - 1) | st.just("-0.000000001") | st.just("999999999999999.999999999")),
        draw(st.just("") | st.just('{"region":"eu"}')),
    )
    return Event(
        indexed_key(claim_key, index) if identity == Identity.INDEXED else draw(sixteen),
        draw(st.binary(min_size=8, max_size=8))
        if with_id
        else payload_fingerprint(Content("", "", event_type, units, properties).payload_number, None),
        identity,
        index,
        draw(st.integers(-(2**53), 2**53)),
        draw(texts),
        draw(st.just("") | texts),
        draw(texts) if with_id else None,
        event_type,
        units,
        properties,
    )


@st.composite
def some_events(draw: st.DrawFn) -> tuple[list[Event], list[Claim]]:
    """Runs of events, each under a claim or under none."""
    events: list[Event] = []
    claims: list[Claim] = []
    for _ in range(draw(st.integers(0, 3))):
        claimed, key = draw(st.booleans()), draw(sixteen)
        of_run = [one for one in Identity if claimed or one != Identity.INDEXED]
        run = [draw(an_event_of(draw(st.sampled_from(of_run)), key)) for _ in range(draw(st.integers(0, 4)))]
        if claimed:
            claims.append(Claim(key, draw(sixteen), len(events), len(run)))
        events += run
    return events, claims


@st.composite
def some_batches(draw: st.DrawFn) -> Batch:
    events, claims = draw(some_events())
    shard, revision = draw(st.integers(0, 1023)), draw(st.integers(0, 2**31))
    accepted_at_us, watermark_us = draw(st.integers(0, 2**53)), draw(st.integers(0, 2**53))
    return Columns.of(events).batch(shard, revision, accepted_at_us, watermark_us, claims)


batches = some_batches()
digests = st.binary(min_size=16, max_size=16)


@given(batches)
def test_a_batch_survives_its_bytes(batch: Batch) -> None:
    record = encode_batch(batch)
    assert decode_batch(record) == batch
    assert encode_batch(decode_batch(record)) == record


@given(some_events())
def test_events_survive_their_columns(made: tuple[list[Event], list[Claim]]) -> None:
    events, claims = made
    batch = decode_batch(encode_batch(Columns.of(events).batch(0, 0, 0, 0, claims)))
    assert batch.events == tuple(events)
    assert (batch.count, batch.nanos) == (len(events), sum(event.nanos for event in events))


@given(some_events(), some_events())
def test_columns_behind_columns_are_the_events_behind_the_events(
    first: tuple[list[Event], list[Claim]], second: tuple[list[Event], list[Claim]]
) -> None:
    columns = Columns.of(first[0])
    columns.extend(Columns.of(second[0]))
    behind = [Claim(claim.key, claim.digest, claim.first + len(first[0]), claim.count) for claim in second[1]]
    assert columns.batch(0, 0, 0, 0, [*first[1], *behind]).events == (*first[0], *second[0])
    assert columns.ids_by_place() == [event.id for event in (*first[0], *second[0])]


@given(batches)
def test_another_msgpack_reads_the_same(batch: Batch) -> None:
    found = unpack(encode_batch(batch))
    assert found[:5] == (batch.version, batch.shard, batch.revision, batch.accepted_at_us, batch.watermark_us)
    assert found[5] == tuple((one.key, one.digest, one.first, one.count) for one in batch.claims)
    assert found[6] == tuple(msgspec.structs.astuple(content) for content in batch.contents)
    events = batch.events
    assert struct.unpack(f">{batch.count}H", found[7]) == tuple(
        batch.contents.index(Content(one.user_id, one.source, one.event_type, one.units, one.properties))
        for one in events
    )
    assert struct.unpack(f">{batch.count}q", found[8]) == tuple(event.time_us for event in events)
    assert tuple(found[9]) == tuple(event.identity for event in events)
    assert struct.unpack(f">{batch.count}H", found[10]) == tuple(event.index for event in events)
    assert found[11] == b"".join(event.key for event in events if event.identity != Identity.INDEXED)
    assert found[12] == b"".join(event.fingerprint for event in events if event.id is not None)
    assert found[13] == tuple(event.id for event in events if event.id is not None)


BROKEN_COLUMNS: dict[str, dict[str, object]] = {
    "a content that is not there": {"content_of": bytes([0, 9])},
    "a time too few": {"times_us": b""},
    "an identity that is none": {"identities": bytes([4])},
    "an index under no claim": {"identities": bytes([Identity.INDEXED]), "keys": b"", "fingerprints": b"", "ids": ()},
    "an index too many": {"indices": bytes(4)},
    "a key too short": {"keys": b"k" * 15},
    "a fingerprint too few": {"fingerprints": b""},
    "an id too many": {"ids": ("e-1", "e-2")},
    "a claim before the first place": {"claims": (Claim(b"k" * 16, b"d" * 16, -1, 1),)},
}


@pytest.mark.parametrize("broken", BROKEN_COLUMNS.values(), ids=BROKEN_COLUMNS)
def test_columns_that_do_not_fit_together_are_refused(broken: dict[str, Any]) -> None:
    batch = a_batch([an_event("e-1")])
    assert decode_batch(encode_batch(batch)) == batch
    with pytest.raises(msgspec.ValidationError):
        decode_batch(encode_batch(msgspec.structs.replace(batch, **broken)))


@pytest.mark.parametrize("version", [0, 1, 3, 127, 128, 255, 2**40])
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
    assert len(encode_batch(batch)) < 40


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
    assert (many - one) / 1000 < 45
