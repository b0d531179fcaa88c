"""Every encoded form of the contract: a value, how it is written, how it is read, and its golden file.

A golden file holds what was written once and has to be read for ever. A form may be added; a file is changed only
together with CONTRACT_VERSION, CODEC_VERSION or the manifest's version (sidecar/contract/README.md says which).

    python -m tests.contract.forms --write-golden    # writes every golden file anew
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from sidecar import manifest as manifests
from sidecar.contract import codec, identity, keys, meters, scripts
from sidecar.contract.codec import Claim, Position, Running
from sidecar.contract.columns import Columns
from sidecar.contract.event import Event, Identity
from sidecar.contract.meters import Counter, Meter, Revision
from sidecar.contract.proof import Answer, Question, ShardAnswer
from sidecar.contract.scripts import Call, Shard, Step
from sidecar.contract.usage import UsageAnswer, UsageFound, UsageQuestion, decode_answer, decode_question
from sidecar.disk import Disk
from sidecar.manifest import Chain, Manifest
from sidecar.segment import Start, frame, link

GOLDEN: Final = Path(__file__).parent / "golden"
LEDGER, PRODUCER, GENERATION, TOKEN = "0123456789abcdef", "fedcba9876543210", "gen-AB_1", "00ff00ff00ff00ff"
TIME_US = 1_753_090_461_123_456  # 2025-07-21T09:34:21.123456Z
DIGEST = bytes(range(16))


def _indexed(index: int, units: int | str) -> Event:
    key = identity.indexed_key(identity.claim_key("order-77", 0), index)
    return Event(key, b"indexed!", Identity.INDEXED, index, TIME_US, "cus_1", "", None, "call", units, "")


TIMED = Event(
    identity.event_key("cus_123456", "eu", "e-1"),
    b"\x00\x01\x02\x03\xfc\xfd\xfe\xff",
    Identity.TIMED,
    0,
    1_753_090_461_000_000,
    "cus_123456",
    "eu",
    "e-1",
    "api_call",
    1,
    '{"n":1.5,"ok":true,"region":"eu"}',
)
CLAIMED = Event(
    identity.event_key("ユーザー", "", "ü"),
    b"claimed!",
    Identity.CLAIMED,
    1,
    TIME_US,
    "ユーザー",
    "",
    "ü",
    "api_call",
    "-999999999999999.999999999",
    "",
)
MADE = Event(
    b"sixteen bytes ok", b"made----", Identity.MADE, 9_999, TIME_US, "cus_1", "", None, "other", "0.000000001", ""
)
EVENTS = (TIMED, CLAIMED, _indexed(0, 3), _indexed(300, -(10**15) + 1), MADE, TIMED)
BATCH = Columns.of(EVENTS).batch(
    shard=0,
    revision=7,
    accepted_at_us=TIME_US,
    watermark_us=TIME_US - 1,
    claims=(
        Claim(identity.claim_key("order-77", 0), DIGEST, 2, 2),
        Claim(identity.claim_key("order-78", 0), DIGEST[::-1], 4, 0),
    ),
)
NANOS = sum(event.nanos for event in EVENTS)
WATERMARK = Columns().batch(3, 0, TIME_US, TIME_US)
START = Start(Position(41, DIGEST), Running(1_000, -5))
POSITION = Position(2**53 + 1, DIGEST)
RUNNING = Running(2**53 + 1, -(10**30) - 1)
COUNTER = Counter("ユーザー", "calls", 1_947_878, '{"region":"eu"}')
METERS = (
    Meter("calls", "call"),
    Meter("bytes", "call", "sum", "properties.bytes", ("region", "zone"), {"region": ("eu", "us"), "tier": ("pro",)}),
    Meter("requests", "api_call", "count"),
)
REVISION = Revision(7, METERS)
QUESTION = Question("question-1", {f"{PRODUCER}/0": POSITION.encode()})
USAGE_QUESTION = UsageQuestion("0123456789abcdef", "ユーザー", 1_753_056_000_000_000, 1_753_142_400_000_000, "peak")
USAGE_ANSWER = UsageAnswer([UsageFound("acme", "peak", {"region": "eu"}, "1.5", 2)])
ANSWER = Answer(
    PRODUCER,
    [
        ShardAnswer(0, POSITION.encode(), "1 1", POSITION.encode(), "2 2.5"),
        ShardAnswer(1, error="the journal does not reach it"),
    ],
)
MANIFEST = Manifest(
    1,
    LEDGER,
    2,
    PRODUCER,
    registered=True,
    chains=(Chain(0, DIGEST.hex(), 0, "0"), Chain(41, DIGEST[::-1].hex(), 1_000, str(-(10**30)))),
)


def segment() -> bytes:
    """Returns a journal segment of two records."""
    return frame(codec.encode_batch(BATCH), BATCH.count, NANOS) + frame(codec.encode_batch(WATERMARK), 0, 0)


def ingest_call() -> Call:
    """Returns the call that applies `BATCH` as the first of its producer."""
    before = Position(0, identity.chain_start(LEDGER, PRODUCER, 0))
    step: Step = link(Start(before, Running(0, 0)), codec.encode_batch(BATCH), BATCH.count, NANOS)
    call = scripts.ingest(Shard(LEDGER, 1, 0, GENERATION), PRODUCER, step, BATCH, REVISION, 86_400)
    args = list(call.args)
    args[10:12] = 1_000, 1_000  # the limits of an epoch may change at any time
    return call._replace(args=args)


def shown(value: bytes | str | int) -> object:
    """Returns a part of a call as the golden file has it: text as it is, other bytes in hex."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value if isinstance(value, str) else str(value)


def call_json(call: Call) -> bytes:
    """Returns a call as JSON, one part a line."""
    value = {"keys": [shown(part) for part in call.keys], "args": [shown(part) for part in call.args]}
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _names() -> dict[str, str]:
    opened, sealed = keys.open_epoch(3, GENERATION), keys.sealed_epoch(3, GENERATION, TOKEN)
    return {
        "LEDGER": keys.LEDGER,
        "METERS": keys.METERS,
        "USERS": keys.USERS,
        "ASKING": keys.ASKING,
        "USAGE_QUESTIONS": keys.USAGE_QUESTIONS,
        "usage_answer": keys.usage_answer("0123456789abcdef"),
        "PROOF_QUESTION": keys.PROOF_QUESTION,
        "proof_answers": keys.proof_answers("question-1"),
        "state": keys.state(3),
        "staged_state": keys.staged_state(3, GENERATION),
        "open_epoch.stream": opened.stream,
        "open_epoch.counters": opened.counters,
        "open_epoch.members": opened.members,
        "sealed_epoch.stream": sealed.stream,
        "sealed_epoch.counters": sealed.counters,
        "sealed_epoch.members": sealed.members,
        "identity_prefix": keys.identity_prefix(3, GENERATION).decode(),
        "totals": keys.totals(3, GENERATION, "ユーザー", 20_290),
        "position_field": keys.position_field(PRODUCER),
        "committed_field": keys.committed_field(PRODUCER),
    }


def names_json() -> bytes:
    """Returns the names of keys and fields as JSON."""
    return (json.dumps(_names(), indent=1, ensure_ascii=False) + "\n").encode()


def _manifest_bytes(manifest: Manifest) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        manifests.store(Disk(), Path(directory), manifest)
        return (Path(directory) / "manifest.json").read_bytes()


def _read_manifest(content: bytes) -> Manifest | None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "manifest.json").write_bytes(content)
        return manifests.load(Disk(), Path(directory))


class Form(NamedTuple):
    """An encoded form: its golden file, a value, how the product writes it, and how the product reads it."""

    file: str
    value: Any
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


FORMS: Final = (
    Form("batch.bin", BATCH, codec.encode_batch, codec.decode_batch),
    Form("watermark.bin", WATERMARK, codec.encode_batch, codec.decode_batch),
    Form("position.txt", POSITION, lambda value: value.encode().encode(), codec.decode_position),
    Form("running.txt", RUNNING, lambda value: value.encode().encode(), codec.decode_running),
    Form("manifest.json", MANIFEST, _manifest_bytes, _read_manifest),
    Form("meters.json", METERS, meters.encode_meters, lambda text: meters.decode_revision(7, text).meters),
    Form(
        "counter_field.bin",
        COUNTER,
        lambda value: keys.counter_field(value).encode(),
        lambda name: keys.decode_counter_field(name.decode()),
    ),
    Form(
        "total_field.bin",
        COUNTER,
        lambda value: keys.total_field(value).encode(),
        lambda name: keys.decode_total_field("ユーザー", name.decode()),
    ),
    Form("usage_question.json", USAGE_QUESTION, msgspec.json.encode, decode_question),
    Form("usage_answer.json", USAGE_ANSWER, msgspec.json.encode, decode_answer),
    Form("proof_question.json", QUESTION, msgspec.json.encode, lambda text: msgspec.json.decode(text, type=Question)),
    Form("proof_answer.json", ANSWER, msgspec.json.encode, lambda text: msgspec.json.decode(text, type=Answer)),
)
# Forms that are written here and read by others: a file, and what it has to hold.
WRITTEN: Final[dict[str, Callable[[], bytes]]] = {
    "segment.bin": segment,
    "ingest_call.json": lambda: call_json(ingest_call()),
    "names.json": names_json,
}


def golden(file: str) -> bytes:
    """Returns what a golden file holds."""
    return (GOLDEN / file).read_bytes()


def main() -> None:
    """Writes the golden files anew, if told so."""
    parser = argparse.ArgumentParser(description="Write the golden files of the contract anew.")
    parser.add_argument("--write-golden", action="store_true", required=True, help="yes, they may change")
    parser.parse_args()
    for form in FORMS:
        (GOLDEN / form.file).write_bytes(form.write(form.value))
    for file, write in WRITTEN.items():
        (GOLDEN / file).write_bytes(write())


if __name__ == "__main__":
    main()
