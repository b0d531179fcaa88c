"""Journals whose disk is full, whose tail is torn or was never synced, that are damaged, cloned, or restored."""

import contextlib
import json
import resource
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.faults.processes import Program, wait_until
from tests.faults.world import PATIENCE_S, TRY_AGAIN, World

SENDS_MAX: Final = 6
HEADER: Final = 32  # of a record: magic, length, checksum, events, units; as in the README of the contract


class Frame(NamedTuple):
    """Where a record stands in a segment."""

    start: int
    end: int


def frames(content: bytes) -> list[Frame]:
    """Returns the whole records of a segment."""
    found: list[Frame] = []
    at = 0
    while at + HEADER <= len(content) and content[at : at + 4] == b"TMJ1":
        end = at + HEADER + struct.unpack_from(">I", content, at + 4)[0]
        if end > len(content):
            break
        found.append(Frame(at, end))
        at = end
    return found


def _one(world: World) -> Program:
    return world.sidecars[world.rng.choice(sorted(world.sidecars))]


def _segments(journal: Path) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for path in sorted(journal.glob("*.segment")):
        found.setdefault(int(path.name.partition("-")[0]), []).append(path)
    return found


def fill_disk(world: World) -> str:
    """The disk takes no more: the operating system refuses by a limit on the size of files, in the middle of a write.

    A write comes back short, the next one fails with EFBIG; what a full disk says instead (ENOSPC) is raised at the
    points "record written", "segment made" and "manifest stored".
    """
    program = _one(world)
    if program.pid is None:
        return "not running"
    most = world.rng.randint(100, 8_000)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    world.rest(1.0)
    if program.pid is not None:
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    world.rest(0.3)
    return f"{program.name}: no file above {most} bytes"


def tear_tail(world: World) -> str:
    """Killed in a write: a part of a further record stands at the end."""
    program = _one(world)
    program.kill()
    torn = 0
    for paths in _segments(world.journal(program.name)).values():
        content = paths[-1].read_bytes()
        if found := frames(content):
            last = content[found[-1].start : found[-1].end]
            torn += 1
            with paths[-1].open("ab") as file:
                file.write(last[: world.rng.randint(1, len(last) - 1)])
    world.rest(0.5)
    return f"{program.name}: {torn} tails"


def lose_unsynced_tail(world: World) -> str:
    """The power fails between a write and its sync: what was written is gone, or half of it is."""
    program = _one(world)
    program.arm("record synced", "before", "stop", nth=world.rng.randint(1, 5))
    world.wait(lambda: program.has_fired and program.is_stopped, PATIENCE_S, f"{program.name} writes a record")
    segment = Path(f"/proc/{program.pid}/fd/{program.fired_numbers()[0]}").readlink()
    program.kill()
    last = frames(segment.read_bytes())[-1]
    with segment.open("r+b") as file:
        file.truncate(world.rng.randint(last.start, last.end - 1))
    world.rest(0.5)
    return f"{program.name}: the last record of {segment.name}"


def flip_bit(world: World) -> str:
    """A bit is flipped in the middle. The sidecar refuses to start, and an operator brings back the file."""
    program = _one(world)
    place = _damage(world, program)
    place.path.write_bytes(place.content)
    program.start()
    world.rest(0.3)
    return f"{program.name}: byte {place.byte} of {place.path.name}"


def repair(world: World) -> str:
    """A bit is flipped in the middle, and `taximeter journal repair` goes on without that record.

    PostgreSQL has it, or it would be lost with the only disk that had it.
    """
    program = _one(world)
    with _quiet(world, program):
        place = _damage(world, program)
        world.taximeter("journal", "repair", str(world.journal(program.name)))
        program.start()
    world.rest(0.3)
    world.wait_until_ready(program.name)
    return f"{program.name}: byte {place.byte} of {place.path.name}"


def send(world: World) -> str:
    """A sidecar is gone and `taximeter journal send` brings what its journal holds to PostgreSQL; then it returns."""
    program = _one(world)
    world.held_down.add(program)
    program.kill()
    for _ in range(SENDS_MAX):  # it may be repeated, and says so
        done = world.taximeter("journal", "send", str(world.journal(program.name)), "--wait", "20", check=False)
        world.tend()
        if done.returncode != TRY_AGAIN:
            break
    if done.returncode != 0 or not _is_counted(world, program):
        world.problems.append(f"{program.name}'s journal could not be sent: {done.stdout}{done.stderr}")
    world.held_down.discard(program)
    world.rest(0.3)
    world.wait_until_ready(program.name)
    return program.name


class Place(NamedTuple):
    """Which byte of a file was damaged, and what was in the file before."""

    path: Path
    content: bytes
    byte: int


def _damage(world: World, program: Program) -> Place:
    """Flips a bit of a record that has another one behind it, and sees that the sidecar does not start with it."""
    journal = world.journal(program.name)
    world.wait(lambda: _in_the_middle(journal) is not None, PATIENCE_S, "a record with another one behind it")
    program.kill()
    found = _in_the_middle(journal)
    if found is None:
        raise RuntimeError("a record vanished from a journal that nobody writes")
    path, frame = found
    content = path.read_bytes()
    byte = world.rng.randint(frame.start + HEADER, frame.end - 1)
    damaged = bytearray(content)
    damaged[byte] ^= 1 << world.rng.randint(0, 7)
    path.write_bytes(damaged)
    program.start()
    wait_until(lambda: program.pid is None, PATIENCE_S, f"{program.name} refuses to start")
    if program.exit_status != 1 or "journal_corrupt" not in program.log_tail():
        world.problems.append(f"{program.name} did not refuse a damaged journal: {program.exit_status}")
    return Place(path, content, byte)


@contextlib.contextmanager
def _quiet(world: World, program: Program) -> Iterator[None]:
    """Keeps clients from a sidecar, and begins when PostgreSQL has what it took; until then no client sends at all."""
    door = world.proxies[f"{program.name}-client"]
    door.refusing = True
    door.cut()
    try:
        for client in world.clients:
            client.signal(signal.SIGSTOP)
        world.wait(lambda: _is_counted(world, program), PATIENCE_S, "PostgreSQL has what it took")
        for client in world.clients:
            client.signal(signal.SIGCONT)
        yield
    finally:
        door.heal()


def _in_the_middle(journal: Path) -> tuple[Path, Frame] | None:
    for paths in _segments(journal).values():
        for path in paths:
            if len(found := frames(path.read_bytes())) > 1:
                return path, found[0]
    return None


def copy(world: World, program: Program, to: Path) -> None:
    """Copies a journal as it is at one moment, the way a snapshot of its disk would."""
    program.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: program.is_stopped or program.pid is None, 5, "it stops")
        shutil.copytree(world.journal(program.name), to)
    finally:
        program.signal(signal.SIGCONT)


def clone(world: World) -> str:
    """A host is cloned with its journal: two sidecars go on from the same records, under the same id."""
    program = _one(world)
    name = f"clone{len(world.sidecars)}"
    copy(world, program, world.journal(name))
    world.add_sidecar(name)
    world.start_clients(prefix="late", targets=[name], share=0.1)
    world.rest(2.0)
    world.wait_until_ready(name, program.name)
    return f"{program.name} as {name}"


def restore_older(world: World) -> str:
    """A host is restored from an older copy of its disk; what it took since is in Redis or in PostgreSQL."""
    program = _one(world)
    older = world.directory / "older-journal"
    copy(world, program, older)
    world.rest(1.5)
    with _quiet(world, program):
        program.kill()
        shutil.rmtree(world.journal(program.name))
        older.rename(world.journal(program.name))
    world.rest(1.0)
    world.wait_until_ready(program.name)
    return program.name


def _is_counted(world: World, program: Program) -> bool:
    """Whether PostgreSQL has every event of a journal that nobody writes events to."""
    journal = world.journal(program.name)
    manifest = json.loads((journal / "manifest.json").read_text())
    accepted = sum(chain["events"] for chain in manifest["chains"])
    try:
        contents = [path.read_bytes() for paths in _segments(journal).values() for path in paths]
    except FileNotFoundError:
        return False  # a segment was given up meanwhile, and the manifest is another by now
    for content in contents:
        accepted += sum(struct.unpack_from(">I", content, frame.start + 12)[0] for frame in frames(content))
    with world.postgres.connect() as connection:
        text = "SELECT coalesce(sum(events), 0) FROM taximeter.positions WHERE producer = %s"
        row = connection.execute(text, (manifest["producer"],)).fetchone()
    return row is not None and int(row[0]) >= accepted
