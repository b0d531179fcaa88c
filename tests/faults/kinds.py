"""Every kind of fault by its name: a function of the world that harms, heals what it can, and says what it did."""

from collections.abc import Callable
from typing import Final

from tests.faults import on_journals, on_links, on_points, on_postgres, on_processes, on_redis
from tests.faults.world import World

Fault = Callable[[World], str]

PROCESSES: Final[dict[str, Fault]] = {
    "kill sidecar": on_processes.kill_sidecar,
    "kill flusher": on_processes.kill_flusher,
    "kill Redis": on_processes.kill_redis,
    "kill PostgreSQL": on_processes.kill_postgres,
    "kill client": on_processes.kill_client,
    "stop sidecar": on_processes.stop_sidecar,
    "stop flusher": on_processes.stop_flusher,
    "stop flusher with work": on_processes.stop_flusher_with_work,
    "stop Redis": on_processes.stop_redis,
    "stop PostgreSQL": on_processes.stop_postgres,
    "named point": on_points.spring,
    "sidecar's clock": on_processes.bend_sidecar_clock,
    "flusher's clock": on_processes.bend_flusher_clock,
}
ON_LINKS: Final[dict[str, Fault]] = {
    "cut client": on_links.cut("*-client"),
    "cut sidecar to Redis": on_links.cut("sidecar*-redis"),
    "cut flusher to Redis": on_links.cut("flusher*-redis"),
    "cut flusher to PostgreSQL": on_links.cut("flusher*-postgres"),
    "lose reply to client": on_links.lose_reply("*-client"),
    "lose reply of Redis to sidecar": on_links.lose_reply("sidecar*-redis"),
    "lose reply of Redis to flusher": on_links.lose_reply("flusher*-redis"),
    "lose reply of PostgreSQL": on_links.lose_reply("flusher*-postgres"),
    "stall Redis": on_links.stall("*-redis"),
    "stall PostgreSQL": on_links.stall("flusher*-postgres"),
    "refuse Redis": on_links.refuse("*-redis"),
    "refuse PostgreSQL": on_links.refuse("flusher*-postgres"),
    "refuse client": on_links.refuse("*-client"),
}
REDIS: Final[dict[str, Fault]] = {
    "wipe Redis": on_redis.wipe,
    "wipe undrained Redis": on_redis.wipe_undrained,
    "replace Redis": on_redis.replace,
    "truncate Redis": on_redis.truncate,
    "promote stale replica": on_redis.promote_stale_replica,
    "fill Redis": on_redis.fill,
    "evict keys": on_redis.evict,
}
POSTGRES: Final[dict[str, Fault]] = {
    "PostgreSQL down": on_postgres.stay_down,
    "terminate at COMMIT": on_postgres.terminate_at_commit,
    "deadlock": on_postgres.deadlock,
    "serialization failure": on_postgres.fail_to_serialize,
    "PostgreSQL disk full at COMMIT": on_postgres.fill_disk_at_commit,
    "PostgreSQL disk full": on_postgres.fill_disk,
    "fail over": on_postgres.fail_over,
}
JOURNALS: Final[dict[str, Fault]] = {
    "journal disk full": on_journals.fill_disk,
    "tear journal": on_journals.tear_tail,
    "lose unsynced tail": on_journals.lose_unsynced_tail,
    "flip bit": on_journals.flip_bit,
    "repair journal": on_journals.repair,
    "send journal": on_journals.send,
    "clone journal": on_journals.clone,
    "restore journal": on_journals.restore_older,
}
LONG: Final[dict[str, Fault]] = {"stop Redis for long": on_processes.stop_redis_for_long}

FAULTS: Final[dict[str, Fault]] = {**PROCESSES, **ON_LINKS, **REDIS, **POSTGRES, **JOURNALS, **LONG}
