"""What the load generator sends is what it says: so many events, each another one, in the size that the head names."""

import re

import hiredis
import pytest

from flusher.bench.requests import (
    MARK,
    STAMP,
    Encoding,
    Request,
    http_batch,
    http_event,
    set_nx,
    stream_batch,
    webdis_set,
)
from sidecar.contract.event import Identity
from sidecar.contract.meters import Revision
from sidecar.frames import Batch, BatchAnswer, ClientHello, decode_from_client, frame
from sidecar.reading import Reading, Terms, read

NOW_US = 1_753_090_461_000_000
TYPES = {"json": "application/json", "ndjson": "application/x-ndjson", "msgpack": "application/msgpack"}


def sent(request: Request, number: int) -> tuple[bytes, bytes]:
    filled = request.template.replace(MARK, b"%012x" % number).replace(STAMP, b"2025-07-21T09:34:21Z")
    assert len(filled) == len(request.template)
    head, _, body = filled.partition(b"\r\n\r\n")
    return head, body


def understood(media_type: str, body: bytes, key: str | None = None) -> Reading:
    terms = Terms(NOW_US, 0, Revision(0, []), 1, lambda size: b"r" * size, key)
    return read(media_type, body, terms)


@pytest.mark.parametrize("encoding", ["json", "ndjson", "msgpack"])
@pytest.mark.parametrize("count", [1, 10, 500])
def test_a_batch_has_so_many_different_events_each_time_and_its_length_is_right(encoding: Encoding, count: int) -> None:
    request = http_batch(count, "run", encoding)
    keys = set()
    for number in (1, 0xFFFF):
        head, body = sent(request, number)
        assert f"Content-Length: {len(body)}".encode() in head
        assert f"Content-Type: {TYPES[encoding]}".encode() in head
        reading = understood(TYPES[encoding], body)
        assert not reading.rejections
        assert {event.identity for event in reading.events} == {Identity.TIMED}
        keys |= {event.key for event in reading.events}
    assert len(keys) == 2 * count


def test_a_batch_with_a_key_has_another_one_each_time_and_no_ids() -> None:
    request = http_batch(100, "run", keyed=True)
    heads = [sent(request, number)[0] for number in (1, 2)]
    keys = [re.findall(rb"Idempotency-Key: (\S+)", head) for head in heads]
    assert [len(found) for found in keys] == [1, 1]
    assert keys[0] != keys[1]
    reading = understood("application/json", sent(request, 1)[1], "a key")
    assert {event.identity for event in reading.events} == {Identity.INDEXED}


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("count", [1, 10, 500])
def test_a_batch_for_the_stream_socket_is_a_frame_and_its_answer_is_told_from_others(count: int, keyed: bool) -> None:
    request = stream_batch(count, "run", keyed=keyed)
    made = []
    for number in (1, 2):
        filled = request.template.replace(MARK, b"%012x" % number).replace(STAMP, b"2025-07-21T09:34:21Z")
        assert int.from_bytes(filled[:4], "big") == len(filled) - 4
        batch = decode_from_client(filled[4:])
        assert isinstance(batch, Batch)
        assert (batch.key is not None) == keyed
        made.append(
            (batch.key, [event.key for event in understood("application/msgpack", batch.body, batch.key).events])
        )
    assert len({key for _, keys in made for key in keys}) == 2 * count
    assert isinstance(decode_from_client(request.greeting[4:]), ClientHello)
    for status in ("applied", "journaled"):
        assert request.expected in frame(BatchAnswer(1, status, count, None, None, 0, []))
        assert request.expected not in frame(BatchAnswer(1, status, count - 1, 1, None, 0, []))


def test_a_peer_gets_the_same_event_and_may_be_told_of_which_user() -> None:
    _, body = sent(http_event("/track", "run", user="somebody"), 1)
    assert [event.user_id for event in understood("application/json", body).events] == ["somebody"]


def test_the_ceiling_of_redis_is_commands_that_each_set_another_key_of_our_width() -> None:
    request = set_nx(3, "runs", 60)
    reader = hiredis.Reader()
    reader.feed(request.template.replace(MARK, b"%012x" % 7))
    commands = [reader.gets() for _ in range(3)]
    assert [command[0] for command in commands] == [b"SET"] * 3
    assert len({command[1] for command in commands}) == 3
    assert {tuple(command[3:]) for command in commands} == {(b"NX", b"EX", b"60")}
    assert request.answer_bytes == len(b"+OK\r\n") * 3
    assert reader.gets() is False


def test_webdis_is_asked_for_the_same_command() -> None:
    assert sent(webdis_set("run", 60), 1)[0].startswith(b"GET /SET/run-000000000001/8bytes!!/NX/EX/60 HTTP/1.1\r\n")
