"""Checks of Redis as a server: version, eviction, durability, memory, and what waits in it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flusher.doctor.finding import Finding, Level, finding
from flusher.source import VERSION_MIN, Source
from flusher.watch import waiting_batches
from sidecar.contract import keys
from sidecar.contract.slots import Servers, address_of

_PART: Final = "redis"
_SECTIONS: Final = ("server", "memory", "persistence", "replication")
_TIGHT: Final = 0.75
PAUSED: Final = 0.85  # of maxmemory: above, sidecars stop sending and keep to their journals
BACKLOG_MAX: Final = 20_000  # batches: more than a flusher that keeps up leaves behind


def check_redis(source: Source) -> list[Finding]:
    """Return what is found of the server, or of each of a cluster. Raises TryAgainError `redis_unavailable`."""
    servers = source.servers()
    found = [judge_cluster(servers)] if servers.cluster else []
    for address, info in source.infos(*_SECTIONS).items():
        found += judge_redis(info, f"{_PART} {address}" if servers.cluster else _PART)
    return found


def check_backlog(source: Source) -> list[Finding]:
    """Return how much waits to be drained, and how a cluster's primaries share the shards, with Postgres or without.

    Raises TryAgainError `redis_unavailable`.
    """
    shards = int(source.ledger_fields().get("shards", "0"))
    servers = source.servers()
    found = [judge_spread(servers, shards)] if servers.cluster else []
    batches = sum(waiting_batches(source, shard, source.state(shard)) for shard in range(shards))
    return [*found, judge_backlog(batches)]


def judge_cluster(servers: Servers) -> Finding:
    """Say whether each slot has a primary."""
    remedy = "find out with `CLUSTER NODES` which primary is away, and start it, or let a replica of it take over"
    level = Level.FAIL if servers.uncovered else Level.OK
    covered = f"{servers.uncovered} slots have no primary" if servers.uncovered else "they cover all slots"
    return finding(_PART, "cluster", f"primaries: {len(servers.urls)}; {covered}", level, remedy)


def judge_spread(servers: Servers, shards: int) -> Finding:
    """Say how many shards each primary has."""
    homes = Counter(servers.url_of(keys.state(shard)) for shard in range(shards))
    spread = ", ".join(f"{address_of(url)} has {homes[url]}" for url in servers.urls)
    return finding(_PART, "spread", f"shards: {shards}; {spread}")


def judge_backlog(batches: int) -> Finding:
    """Say whether the flushers keep up with what comes."""
    level = Level.OK if batches <= BACKLOG_MAX else Level.WARN
    remedy = "no flusher takes them as fast as they come: is PostgreSQL away, or is one more flusher needed?"
    return finding(_PART, "backlog", f"{batches} batches wait to be drained", level, remedy)


def judge_redis(info: Mapping[str, Any], part: str = _PART) -> Iterator[Finding]:
    """Yield what the fields of INFO say of a server, which is called `part`."""
    yield _version(info, part)
    yield _eviction(info, part)
    yield _durability(info, part)
    yield _memory(info, part)
    if str(info.get("role", "master")) != "master":
        remedy = "name the primary's address; a replica takes no writes"
        yield finding(part, "role", f"it is a {info['role']}", Level.FAIL, remedy)


def _version(info: Mapping[str, Any], part: str) -> Finding:
    version = str(info.get("redis_version", "0.0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    program = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    level = Level.OK if numbers >= VERSION_MIN else Level.FAIL
    return finding(part, "version", program, level, "use Redis 7.0 or Valkey 8, or newer")


def _eviction(info: Mapping[str, Any], part: str) -> Finding:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    level = Level.OK if policy == "noeviction" else Level.FAIL
    remedy = "CONFIG SET maxmemory-policy noeviction, and in its configuration: it would evict usage"
    return finding(part, "eviction", f"maxmemory-policy {policy}", level, remedy)


def _durability(info: Mapping[str, Any], part: str) -> Finding:
    name = "durability"
    if not int(info.get("aof_enabled", 0)):
        remedy = "CONFIG SET appendonly yes: until Postgres has them, the journal's disk alone holds the events"
        return finding(part, name, "no append-only file", Level.WARN, remedy)
    if str(info.get("aof_last_write_status", "ok")) != "ok":
        remedy = "look at the server's log; its disk may be full"
        return finding(part, name, "the append-only file can't be written", Level.FAIL, remedy)
    return finding(part, name, "an append-only file is written")


def _memory(info: Mapping[str, Any], part: str) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    bound = limit or machine
    share = used / bound if bound else 0.0
    of = f"of its maxmemory of {size(limit)}" if limit else f"of the machine's {size(machine)}, without a maxmemory"
    level = Level.OK if share < _TIGHT else Level.WARN if share < PAUSED or not limit else Level.FAIL
    remedy = f"give it more memory, or let the flusher reach PostgreSQL: above {PAUSED:.0%} sidecars only journal"
    return finding(part, "memory", f"{size(used)} {of}", level, remedy)


def size(count: int) -> str:
    """Return a number of bytes as a person reads it."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"
