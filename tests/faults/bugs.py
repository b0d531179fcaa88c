"""Planted bugs: what the oracle has to catch on real processes. FAULTS_BUGS switches them on, by name.

Each replaces a function of the product by one that breaks a rule, the way such a bug would really be written.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from flusher import drain
from flusher.entry import Entry, Verdict
from flusher.ledger import Ledger
from flusher.source import Source
from sidecar.api import Api
from sidecar.contract import keys
from sidecar.contract.codec import Position
from sidecar.lane import Entry as Journaled
from sidecar.lane import Lane, Part
from tests.faults.program import replace


def answers_before_the_journal_has_it() -> None:
    """A success is said while the batch is still on its way to the disk."""
    journal = Lane._journal

    async def early(lane: Lane, parts: Sequence[Part], batch: Any, deliver: Callable[[int, Journaled], None]) -> None:
        for part in parts:
            part.settle(None)
            if not part.journaled.done():
                part.journaled.set_result(None)
        await asyncio.sleep(0.2)
        await journal(lane, parts, batch, deliver)

    replace(Lane, "_journal", early)


def retries_by_itself() -> None:
    """A request that was not confirmed in time is simply taken once more."""
    take = Api._take

    async def again(api: Api, submission: Any, body: bytes) -> Any:
        answer = await take(api, submission, body)
        return answer if answer.status != 202 else await take(api, submission, body)

    replace(Api, "_take", again)


def deletes_segments_that_only_redis_has() -> None:
    """The journal follows Redis's position where it should follow Postgres's (rule 12)."""
    replace(keys, "committed_field", keys.position_field)


def adds_usage_in_a_step_of_its_own() -> None:
    """Usage is committed at once, not with the positions."""

    def at_once(ledger: Ledger, shard: int, counters: Mapping[Any, Any]) -> None:
        other = Ledger(ledger._url)
        with other.transaction():
            add_usage(other, shard, counters)
        other.close()

    add_usage = Ledger.add_usage
    replace(Ledger, "add_usage", at_once)


def lets_positions_jump() -> None:
    """An entry is taken wherever it starts (rule 2)."""

    def judge(entry: Entry, position: Position | None) -> Verdict:
        if position is None or entry.after.sequence <= position.sequence:
            return Verdict.SKIP
        return Verdict.TAKE

    replace(drain, "judge", judge)


def keeps_claims_in_redis_alone() -> None:
    """An id without a time is remembered by Redis only (design 2.2)."""

    def nowhere(ledger: Ledger, claims: Mapping[Any, Any]) -> None:
        return None

    replace(Ledger, "store_claims", nowhere)


def publishes_by_adding() -> None:
    """Totals are added to what Redis has, where they are absolute (rule 4)."""
    publish = Source.publish

    def adding(source: Source, shard: int, generation: str, token: str, committed: Any, totals: Iterable[Any]) -> None:
        grown = []
        for day in totals:
            there = source.hash(keys.totals(shard, generation, day.user_id, day.day))
            fields = {
                name: f"{int(there.get(name, '0').split()[0]) + int(value.split()[0])} {value.split()[1]}"
                for name, value in day.fields.items()
            }
            grown.append(day._replace(fields=fields))
        publish(source, shard, generation, token, committed, grown)

    replace(Source, "publish", adding)


BUGS: Final[dict[str, Callable[[], None]]] = {
    bug.__name__: bug
    for bug in (
        answers_before_the_journal_has_it,
        retries_by_itself,
        deletes_segments_that_only_redis_has,
        adds_usage_in_a_step_of_its_own,
        lets_positions_jump,
        keeps_claims_in_redis_alone,
        publishes_by_adding,
    )
}


def plant(names: Iterable[str]) -> None:
    """Switches bugs on in this process."""
    for name in names:
        BUGS[name]()
