"""`taximeter up`: the whole system in the foreground, its data in a directory, until Ctrl-C."""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from flusher.embedded.system import Address, System
from flusher.endpoints import DEFAULT_DATA_DIR, Endpoints
from sidecar.contract.codes import TaximeterError

DEFAULT_HTTP = "127.0.0.1:8130"
_CHECK_INTERVAL_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the data are and where the sidecar listens."""
    parser.add_argument(
        "--data-dir",
        metavar="D",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help="where data are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", default=DEFAULT_HTTP, help="where the sidecar listens (default: %(default)s)"
    )
    parser.add_argument("--socket", metavar="PATH", type=Path, help="its Unix socket (default: D/taximeter.sock)")
    parser.add_argument("--catalog", metavar="F", type=Path, help="a catalog to apply at the start")


def run(args: argparse.Namespace) -> int:
    """Run until a signal asks to stop, then drain and stop. Raises TaximeterError when it can't start or stop."""
    if args.catalog is not None and not args.catalog.is_file():
        raise TaximeterError("usage_invalid", f"--catalog: expected a file, got {str(args.catalog)!r}")
    stop = _StopRequest()
    system = System(args.data_dir, Address.parse(args.http), socket_path=args.socket, catalog=args.catalog, tell=_tell)
    began_at = time.monotonic()
    endpoints = system.start()
    try:
        sys.stdout.write(_welcome(endpoints, args.data_dir, time.monotonic() - began_at))
        sys.stdout.flush()
        while not stop.requested:
            system.check()
            time.sleep(_CHECK_INTERVAL_S)
        _tell("stopping (once more to stop at once; nothing is lost by that)")
        system.stop()
    except BaseException:
        system.kill()
        raise
    _tell(f"stopped; the data stay in {args.data_dir}")
    return 0


class _StopRequest:
    """Remembers that a signal asked to stop; a second one interrupts whatever is going on."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def _tell(line: str) -> None:
    sys.stderr.write(f"taximeter up: {line}\n")
    sys.stderr.flush()


def _welcome(endpoints: Endpoints, data_dir: Path, took_s: float) -> str:
    here = "" if data_dir == DEFAULT_DATA_DIR else f" --data-dir {shlex.quote(str(data_dir))}"
    event = '{"user_id": "cus_123456", "event_type": "api_call", "units": 1}'
    next_commands = {
        f"taximeter flush{here}": "bring it into PostgreSQL",
        f"taximeter usage{here}": "what was counted",
        f"taximeter apply{here} catalog.toml": "meters, plans, customers, subscriptions",
        f"taximeter invoice{here} --dry-run": "what would be billed now",
        f"taximeter verify{here}": "the proof that every event is counted once",
    }
    width = max(map(len, next_commands))
    commands = "\n".join(f"  {command:{width}}  # {does}" for command, does in next_commands.items())
    return f"""
Taximeter is ready after {took_s:.1f} s.

  HTTP    {endpoints.http}
  socket  {endpoints.socket}
  data    {data_dir}

Send an event:

  curl {endpoints.http}/v1/events -H 'Content-Type: application/json' -d '{event}'

Then, in another terminal:

{commands}

Ctrl-C drains and stops; the data stay.
"""
