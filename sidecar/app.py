"""Puts a sidecar together from its settings, runs it until a signal asks it to stop, and takes it apart in order."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

import uvloop

from sidecar.api import Api
from sidecar.config import Settings, add_flags, settings_from
from sidecar.contract import logs
from sidecar.contract.codes import TaximeterError
from sidecar.contract.settings import with_secrets
from sidecar.guard import Guard, read_tokens
from sidecar.ingest import Ingest
from sidecar.intake import Intake
from sidecar.journal import Journal
from sidecar.link import RedisServer
from sidecar.listening import UnixSocket, bind_tcp
from sidecar.live import LiveUsage
from sidecar.metrics import Gauges, Metrics
from sidecar.serving import Serving, check_parser
from sidecar.stream import Stream, rules_of
from sidecar.taking import Taking

WRONG_USE: Final = 2
FAILED: Final = 1
COLLECT_AFTER: Final = 10_000  # containers that were made and are still there; the default is 700

_log = logging.getLogger(__name__)


class Sidecar:
    """One running sidecar. Make it and `start` it in a running loop; `stop` leaves nothing half done.

    `http_port` is the port that was taken, None without TCP.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the journal and the sockets. Raises TaximeterError when something can't be had."""
        check_parser()
        tokens = read_tokens(settings.token_file) if settings.token_file else ()
        self._journal = Journal(
            settings.journal_dir, bytes_max=settings.journal_bytes_max, segment_bytes=settings.journal_segment_bytes
        )
        self._tcp = bind_tcp(settings.http) if settings.http else None
        self._guard = Guard(settings.http, tokens) if settings.http else None
        self._unix = UnixSocket(settings.socket, settings.socket_mode) if settings.socket else None
        self._stream_unix = (
            UnixSocket(settings.stream_socket, settings.socket_mode, "--stream-socket")
            if settings.stream_socket
            else None
        )
        self.http_port: int | None = self._tcp.getsockname()[1] if self._tcp else None
        self.ingest = Ingest(
            RedisServer(settings.redis_url),
            self._journal,
            ack_deadline_s=settings.ack_deadline_s,
            dedupe_ttl_s=settings.dedupe_ttl_s,
            hold_s=settings.journal_hold_s,
            watermark_interval_s=settings.watermark_interval_s,
            redis_memory_high=settings.redis_memory_high / 100,
        )
        intake = Intake(
            body_bytes_max=settings.body_bytes_max,
            waiting_bytes_max=settings.waiting_bytes_max,
            read_deadline_s=settings.read_deadline_s,
        )
        metrics = Metrics()
        live = LiveUsage(self.ingest)
        taking = Taking(self.ingest, intake, metrics, request_events_max=settings.request_events_max)
        api = Api(self.ingest, live, intake, metrics, taking)
        rules = rules_of(
            body_bytes_max=settings.body_bytes_max,
            waiting_bytes_max=settings.waiting_bytes_max,
            request_events_max=settings.request_events_max,
            read_deadline_s=settings.read_deadline_s,
        )
        self._serving = Serving(api, Stream(taking, intake, metrics, rules), settings.connections_max)
        metrics.watch(_gauges(self.ingest, api, intake, self._serving))

    async def start(self) -> None:
        """Begin to work and to serve."""
        self.ingest.start()
        if self._tcp is not None:
            await self._serving.listen(self._tcp, self._guard)
        if self._unix is not None:
            await self._serving.listen(self._unix.socket, None)
        if self._stream_unix is not None:
            await self._serving.listen_stream(self._stream_unix.socket)

    async def stop(self) -> None:
        """Refuse new requests, finish those under way, sync the journal, close."""
        await self._serving.stop()
        await self.ingest.stop(leave=True)
        for unix in (self._unix, self._stream_unix):
            if unix is not None:
                unix.remove()


def _gauges(ingest: Ingest, api: Api, intake: Intake, serving: Serving) -> Gauges:
    def lag_batches() -> float:
        pairs = zip(ingest.senders, ingest.journal.shards, strict=False)
        return sum(shard.head.position.sequence - (sender.acked or shard.committed).sequence for sender, shard in pairs)

    return Gauges(
        ready=lambda: float(ingest.unready() is None),
        journal_bytes=lambda: ingest.journal.size,
        journal_bytes_max=lambda: ingest.journal.bytes_max,
        redis_lag_batches=lag_batches,
        redis_memory_ratio=lambda: ingest.memory.ratio,
        redis_shards_connected=lambda: sum(sender.streaming for sender in ingest.senders),
        sending_paused=lambda: bool(ingest.memory.paused),
        clock_skew_seconds=lambda: ingest.directory.clock_skew_s,
        connections=lambda: serving.connections,
        requests_in_flight=lambda: api.requests_in_flight,
        waiting_bytes=lambda: intake.waiting_bytes,
    )


async def serve(settings: Settings) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Raises TaximeterError when it can't start, or can't go on: whoever supervises it starts it anew, from its journal.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    sidecar = Sidecar(settings)
    await sidecar.start()
    _collect_seldom()
    http = settings.http._replace(port=sidecar.http_port) if settings.http and sidecar.http_port else ""
    _log.info("serving", extra={"http": str(http), "socket": str(settings.socket or "")})
    waiting = [asyncio.create_task(event.wait()) for event in (stopping, sidecar.ingest.failed)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    _log.info("stopping")
    await sidecar.stop()
    if sidecar.ingest.fault is not None:
        raise sidecar.ingest.fault
    _log.info("stopped")


def _collect_seldom() -> None:
    """Look for cycles less often, and not among what was there at the start.

    Requests make hardly any, but each is a hundred containers for a moment. By default a twentieth of the time under
    load went into looking at them, and now and then all that was imported was looked through: 30 to 80 ms in which
    nobody was answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting."""
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run a sidecar in the foreground and return the exit status: 0, 1 when it can't start, 2 for a bad setting."""
    try:
        settings = settings_from(vars(args), with_secrets(os.environ, Path.read_text))
        logs.set_up(settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except TaximeterError as error:
        sys.stderr.write(f"error: {error.code}: {error.message}\n")
        return WRONG_USE if error.code == "config_invalid" else FAILED
    return 0
