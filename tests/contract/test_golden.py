"""What was written once is read for ever: every golden file, by the product and by readers that share no code with it.

A test that fails here says that a form changed. Make the change a new version (sidecar/contract/README.md), or undo it;
write the files anew only for a form that nobody has stored yet.
"""

import json
import struct
from hashlib import blake2b
from typing import Any

import pytest

from sidecar.contract import keys, scripts
from sidecar.contract.codec import CODEC_VERSION, Running, decode_batch
from sidecar.contract.identity import chain_start
from sidecar.contract.scripts import Call
from sidecar.disk import Disk
from sidecar.manifest import VERSION as MANIFEST_VERSION
from sidecar.segment import Cursor
from tests.contract import forms
from tests.contract.forms import BATCH, FORMS, NANOS, START, WATERMARK, WRITTEN, Form, golden
from tests.contract.independent import Framed, chained, pack, read_segment, unpack
from tests.contract.store import Store

E1 = bytes.fromhex("ba78de3a9fd35c97ea2ca303ac6575be")
CLAIMED = bytes.fromhex("1404344029b93cbb453eb97e7a2deb89")
JULY_US = 1_753_090_461_123_456
# The golden batch, written out: nothing here comes from the product.
E1_FINGERPRINT = b"\x00\x01\x02\x03\xfc\xfd\xfe\xff"
PLAIN_BATCH = (
    2,
    0,
    7,
    JULY_US,
    JULY_US - 1,
    (
        (bytes.fromhex("efdaed3789a885df304ce5c355d5dbde"), bytes(range(16)), 2, 2),
        (bytes.fromhex("55ce6ebac2b9af0cc3014044df623d71"), bytes(range(16))[::-1], 4, 0),
    ),
    (
        ("cus_123456", "eu", "api_call", 1, '{"n":1.5,"ok":true,"region":"eu"}'),
        ("ユーザー", "", "api_call", "-999999999999999.999999999", ""),
        ("cus_1", "", "call", 3, ""),
        ("cus_1", "", "call", -999_999_999_999_999, ""),
        ("cus_1", "", "other", "0.000000001", ""),
    ),
    bytes.fromhex("0000 0001 0002 0003 0004 0000"),
    struct.pack(">6q", 1_753_090_461_000_000, JULY_US, JULY_US, JULY_US, JULY_US, 1_753_090_461_000_000),
    bytes([0, 1, 2, 2, 3, 0]),
    struct.pack(">6H", 0, 1, 0, 300, 9_999, 0),
    E1 + CLAIMED + b"sixteen bytes ok" + E1,
    E1_FINGERPRINT + b"claimed!" + E1_FINGERPRINT,
    ("e-1", "ü", "e-1"),
)
# What the keys of its indexed events are, which it does not hold.
INDEX_0, INDEX_300 = (
    bytes.fromhex("083eaa1d2fba21b27cc1d076746640cf"),
    bytes.fromhex("fd7379f3ff0203c1333e328a1318f6ac"),
)
PLAIN_WATERMARK = (2, 3, 0, JULY_US, JULY_US, (), (), b"", b"", b"", b"", b"", b"", ())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.file)
def test_a_golden_file_is_read_as_the_value_that_was_written(form: Form) -> None:
    assert form.read(golden(form.file)) == form.value


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.file)
def test_the_value_is_still_written_as_the_same_bytes(form: Form) -> None:
    assert form.write(form.value) == golden(form.file)


@pytest.mark.parametrize("file", WRITTEN)
def test_what_others_read_is_still_written_as_the_same_bytes(file: str) -> None:
    assert WRITTEN[file]() == golden(file)


def test_every_golden_file_belongs_to_a_form() -> None:
    assert {path.name for path in forms.GOLDEN.iterdir()} == {*(form.file for form in FORMS), *WRITTEN}


def test_the_golden_files_are_of_the_versions_in_force() -> None:
    assert golden("batch.bin")[1] == CODEC_VERSION
    assert json.loads(golden("names.json"))["state"] == f"{{t{keys.CONTRACT_VERSION}:3}}"
    assert json.loads(golden("manifest.json"))["version"] == MANIFEST_VERSION


# -- by readers that share no code


def test_another_msgpack_reads_the_records() -> None:
    assert unpack(golden("batch.bin")) == PLAIN_BATCH
    assert unpack(golden("watermark.bin")) == PLAIN_WATERMARK


def test_what_the_record_leaves_out_follows_from_the_rest() -> None:
    events = decode_batch(golden("batch.bin")).events
    assert [event.key for event in events] == [E1, CLAIMED, INDEX_0, INDEX_300, b"sixteen bytes ok", E1]
    # msgpack of ["call", 3, ""], by a hash that shares no code
    payload = pack(["call", 3, ""])
    assert events[2].fingerprint == blake2b(payload, digest_size=8, person=b"fingerprint").digest()


def test_struct_and_zlib_read_the_segment() -> None:
    assert read_segment(golden("segment.bin")) == [
        Framed(6, NANOS, golden("batch.bin")),
        Framed(0, 0, golden("watermark.bin")),
    ]
    # 2 x 1 - 999999999999999.999999999 + 3 - 999999999999999 + 0.000000001
    assert NANOS == -1_999_999_999_999_993_999_999_998


def test_the_product_reads_the_segment(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("golden") / "0000-0000000000000042.segment"
    path.write_bytes(golden("segment.bin"))
    steps = list(Cursor(Disk(), path, START).steps())
    assert [decode_batch(step.record) for step in steps] == [BATCH, WATERMARK]
    assert [step.after.sequence for step in steps] == [42, 43]
    assert steps[0].running == Running(1_006, NANOS - 5) == steps[1].running
    # the chain, by a hash that shares no code, and as it has always been
    records = [golden("batch.bin"), golden("watermark.bin")]
    assert steps[1].after.digest == chained(START.position.digest, records)
    assert steps[1].after.digest.hex() == "5c797c40d700988a7b645d45c1d9403d"


def test_json_reads_what_is_json() -> None:
    manifest = json.loads(golden("manifest.json"))
    assert manifest == {
        "version": 1,
        "ledger": "0123456789abcdef",
        "shards": 2,
        "producer": "fedcba9876543210",
        "registered": True,
        "chains": [
            {"sequence": 0, "digest": bytes(range(16)).hex(), "events": 0, "nanos": "0"},
            {"sequence": 41, "digest": bytes(range(16))[::-1].hex(), "events": 1000, "nanos": "-1" + "0" * 30},
        ],
    }
    calls, bytes_, requests = json.loads(golden("meters.json"))
    assert calls == {
        "name": "calls",
        "event_type": "call",
        "aggregation": "sum",
        "field": "units",
        "group_by": [],
        "filter": {},
        "detailed": False,
    }
    assert (bytes_["group_by"], bytes_["filter"]) == (["region", "zone"], {"region": ["eu", "us"], "tier": ["pro"]})
    assert (bytes_["field"], requests["aggregation"]) == ("properties.bytes", "count")
    position = "9007199254740993:000102030405060708090a0b0c0d0e0f"
    assert json.loads(golden("proof_question.json")) == {
        "id": "question-1",
        "positions": {"fedcba9876543210/0": position},
    }
    assert json.loads(golden("proof_answer.json")) == {
        "producer": "fedcba9876543210",
        "shards": [
            {"shard": 0, "at": position, "at_running": "1 1", "head": position, "head_running": "2 2.5"},
            {"shard": 1, "error": "the journal does not reach it"},
        ],
    }


def test_text_forms_are_what_they_look_like() -> None:
    assert golden("position.txt") == b"9007199254740993:000102030405060708090a0b0c0d0e0f"
    assert golden("running.txt") == b"9007199254740993 -1000000000000000000000.000000001"
    assert golden("counter_field.bin").decode().split("\x1f") == ["ユーザー", "calls", "001db8e6", '{"region":"eu"}']
    assert golden("total_field.bin").decode().split("\x1f") == ["calls", "001db8e6", '{"region":"eu"}']
    assert int("001db8e6", 16) == JULY_US // 900_000_000


# -- the call, by the script


def golden_call() -> Call:
    """Returns the golden call, as it stands in the file."""
    value: dict[str, list[Any]] = json.loads(golden("ingest_call.json"))
    names, args = (
        [part if isinstance(part, str) else bytes.fromhex(part["hex"]) for part in value[side]]
        for side in ("keys", "args")
    )
    return Call(scripts.script("ingest"), names, args)


def test_the_call_carries_the_record_and_its_step() -> None:
    call = golden_call()
    before, after, running, record = call.args[4:8]
    start = chain_start(forms.LEDGER, forms.PRODUCER, 0)
    assert record == golden("batch.bin")
    assert before == f"0:{start.hex()}"
    assert after == f"1:{chained(start, [golden('batch.bin')]).hex()}"
    assert running == "6 -1999999999999993.999999998"


def test_the_golden_call_is_applied_as_it_always_was(store: Store) -> None:
    # given a registered producer and an open generation
    call = golden_call()
    before = call.args[4]
    state = {"ledger": forms.LEDGER, "shards": "1", "generation": forms.GENERATION, f"p:{forms.PRODUCER}": before}
    store.client.hset("{t1:0}", mapping=state)
    # when the golden call is made
    assert store.run(call) == [b"applied", b"d5"]
    # then Redis holds this, and nothing else
    prefix = b"{t1:0}gen-AB_1."
    dump = {name: value for name, (_, value, _) in store.dump().items()}
    ((_, entry),) = dump.pop(b"{t1:0}gen-AB_1:stream")
    assert entry == {
        b"p": b"fedcba9876543210",
        b"a": str(before).encode(),
        b"z": str(call.args[5]).encode(),
        b"n": b"6 -1999999999999993.999999998",
        b"t": b"d5",
        b"b": golden("batch.bin"),
    }
    stems = {
        "cus_123456\x1frequests\x1f001db8e6\x1f{}": {"n": 1, "1": 1},
        "ユーザー\x1frequests\x1f001db8e6\x1f{}": {"n": 1, "1": 1},
        "cus_1\x1fcalls\x1f001db8e6\x1f{}": {"n": 2, "1": -999_999_996, "2": -999_999},
        "cus_1\x1fother\x1f001db8e6\x1f{}": {"n": 1, "0": 1},
    }
    fields = {f"{stem}\x1f{suffix}": value for stem, parts in stems.items() for suffix, value in parts.items()}
    assert dump == {
        b"{t1:0}": {name.encode(): str(value).encode() for name, value in state.items()}
        | {f"p:{forms.PRODUCER}".encode(): str(call.args[5]).encode(), b"events": b"6"},
        b"{t1:0}gen-AB_1:counters": {name.encode(): str(value).encode() for name, value in fields.items()},
        b"{t1:0}gen-AB_1:index": sorted((stem.encode(), 0.0) for stem in stems),
        prefix + bytes.fromhex("efdaed3789a885df304ce5c355d5dbde"): bytes(range(16)) + b"0-0,300-300",
        prefix + bytes.fromhex("55ce6ebac2b9af0cc3014044df623d71"): bytes(range(16))[::-1],
        prefix + E1: E1_FINGERPRINT,
        prefix + CLAIMED: b"claimed!",
    }
