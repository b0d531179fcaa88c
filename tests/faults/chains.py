"""Positions held against the journals themselves: the chain is computed anew from the records on disk.

Written from the README of `sidecar/contract`, as `tests/contract/independent.py` is, which it uses.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.contract.independent import chained, read_segment


class Link(NamedTuple):
    """What stands behind a record: the digest of the chain, and how many events there were up to there."""

    digest: bytes
    events: int


def links(journal: Path) -> dict[tuple[str, int], dict[int, Link]]:
    """Returns, by producer and shard, what stands behind every record of a journal that nobody writes events to."""
    manifest = json.loads((journal / "manifest.json").read_text())
    producer: str = manifest["producer"]
    return {(producer, shard): _links_of(journal, shard, chain) for shard, chain in enumerate(manifest["chains"])}


def _links_of(journal: Path, shard: int, chain: dict[str, Any]) -> dict[int, Link]:
    sequence, link = chain["sequence"], Link(bytes.fromhex(chain["digest"]), chain["events"])
    found = {sequence: link}
    first = sequence + 1 + chain.get("shift", 0)
    for path in sorted(journal.glob(f"{shard:04d}-*.segment")):
        if int(path.stem.partition("-")[2]) >= first:
            for framed in read_segment(path.read_bytes()):
                sequence, link = sequence + 1, Link(chained(link.digest, [framed.record]), link.events + framed.events)
                found[sequence] = link
    return found


def strays(journals: list[Path], connection: "psycopg.Connection[Any]") -> list[str]:
    """Returns the positions in PostgreSQL that are not on the chain of their journal, with what they should be."""
    rows = connection.execute("SELECT producer, shard, sequence, digest, events FROM taximeter.positions").fetchall()
    positions = {
        (producer, shard): (sequence, Link(bytes(digest), events)) for producer, shard, sequence, digest, events in rows
    }
    found: list[str] = []
    for journal in journals:
        for place, chain in links(journal).items():
            if place not in positions:
                found.append(f"{journal.name}: {place} has no position")
                continue
            sequence, said = positions[place]
            if chain.get(sequence) != said:
                found.append(f"{journal.name}: {place} at {sequence} {said}, the journal has {chain.get(sequence)}")
            elif max(chain.values(), key=lambda link: link.events).events != said.events:
                found.append(f"{journal.name}: {place} has events behind {sequence}")
    return found
