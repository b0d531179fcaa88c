"""The program `taximeter flusher`: waits for its servers, cycles until it is asked to end, and cycles once more."""

import logging
import signal
import threading
from types import FrameType
from typing import Final

from flusher.answers import Answers
from flusher.config import Settings
from flusher.health import Health, HealthServer
from flusher.retention import Keep
from flusher.worker import Worker
from sidecar.contract.codes import TaximeterError, TryAgainError

FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0

_log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Run a flusher in the main thread until SIGTERM or SIGINT.

    Raises TaximeterError when it can't listen where the settings say, or when Redis is one that would lose events.
    """
    stop = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        _log.info("%s: stopping after this cycle", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    health = Health()
    if settings.health_http is None:
        _run(settings, health, stop)
        return
    with HealthServer(settings.health_http, health) as server:
        _log.info("health and metrics are served on %s", server.address)
        _run(settings, health, stop)


def _run(settings: Settings, health: Health, stop: threading.Event) -> None:
    worker = _connect(settings, health, stop)
    if worker is None:
        return
    try:
        _log.info("connected; draining every %g s", settings.flush_interval_s)
        with Answers(settings.redis_url, settings.database_url):
            worker.run(settings.flush_interval_s, stop.wait)
        _last_cycle(worker)
    finally:
        worker.close()


def _connect(settings: Settings, health: Health, stop: threading.Event) -> Worker | None:
    """Return a worker once both servers answer and the schema is there; None when asked to stop before."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            keep = Keep(settings.claims_keep_days, settings.events_keep_days)
            return Worker.connect(
                settings.redis_url,
                settings.database_url,
                health,
                keep,
                settings.finalization_window_s,
                settings.keyed_rows,
            )
        except TaximeterError as error:
            if not isinstance(error, TryAgainError) and error.code != "schema_outdated":
                raise
            health.failed(error)
            _log.warning("%s; trying again in %g s", error, wait_s)
        if stop.wait(wait_s):
            return None
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def _last_cycle(worker: Worker) -> None:
    """Leave as little as possible behind. What can't be drained now stays where it is safe."""
    try:
        drained = worker.run_once()
    except TaximeterError as error:
        _log.warning("stopped without a last cycle: %s", error)
    else:
        _log.info("stopped after a last cycle", extra={"events": drained.events})
