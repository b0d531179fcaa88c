"""`taximeter invoice --sink meters`: take usage into meter events, and send them to Stripe."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from flusher.cli.instant import instant
from flusher.cli.output import print_json, progress
from flusher.cli.stripe_target import KEY_VARIABLE, announce_stripe, find_stripe
from flusher.cli.target import find_target
from flusher.database import check_schema, connect
from flusher.invoicing.gateway import StripeSettings
from flusher.invoicing.meter_calls import Api
from flusher.invoicing.meter_events import AGE_MAX, METERS_VARIABLE, choose_names, read_names
from flusher.invoicing.meter_gateway import MeterGateway
from flusher.invoicing.meter_sink import Sent, send_events
from flusher.invoicing.meter_usage import Held, Progress, Wanted, take_usage
from flusher.invoicing.settle import NotYet
from flusher.invoicing.sink import SINCE_VARIABLE, Sink, bind_meters, check_sink, first_hour
from flusher.invoicing.store import rows
from sidecar.contract.codes import TaximeterError, TryAgainError
from sidecar.contract.units import format_units, from_decimal

Connection = psycopg.Connection[TupleRow]

API_VARIABLE: Final = "TAXIMETER_STRIPE_METER_API"
SHOWN_MAX: Final = 1_000
"""Parked events, and usage that is held back, in a report; the rest is counted."""

_DONE: Final = 0
_FAILED: Final = 1
_TRY_AGAIN: Final = 75


def push(args: argparse.Namespace, window: timedelta) -> int:
    """Take, send and report. Returns 0, 1 when an event is parked, 75 when something only waits."""
    stripe = find_stripe(live=args.live, sends=not args.dry_run)
    if stripe is None and not args.dry_run:
        raise TaximeterError("stripe_key_missing", f"--sink meters sends to Stripe; set {KEY_VARIABLE}")
    if stripe is not None and stripe.livemode and not (args.yes or args.dry_run) and not sys.stdin.isatty():
        raise TaximeterError("usage_invalid", "a live key moves real money, and nobody can be asked here: add --yes")
    api = find_api(os.environ)
    target = find_target(args)
    url = target.need_database()
    target.announce("database")
    announce_stripe(stripe)
    with connect(url, autocommit=True) as connection:
        check_schema(connection)
        check_sink(connection, Sink.METERS)
        names = find_names(connection, os.environ)
        since = first_hour(connection, _since(os.environ))
        wanted = Wanted(list(names), since, args.at, args.customer, window)
        if stripe is None or args.dry_run:
            return _preview(connection, wanted, as_json=args.json)
        with closing(MeterGateway(stripe)) as gateway:
            bind_meters(connection, gateway, since)
        with _shown("reading usage") as shown:
            held = take_usage(connection, wanted, shown)
        sent, failure = _send(connection, url, stripe, names, api, ask=stripe.livemode and not args.yes)
        parked = _report(connection, sent, held, as_json=args.json)
        waits = _count(connection, "pending") > 0 or bool(held)
    if failure is not None and not isinstance(failure, TryAgainError):
        raise failure
    if parked:
        return _FAILED
    if failure is not None:
        raise failure
    return _TRY_AGAIN if waits else _DONE


def find_names(connection: Connection, environment: Mapping[str, str]) -> dict[str, str]:
    """Return Stripe's event name by meter, from the environment or all that can be sent by their own names."""
    text = environment.get(METERS_VARIABLE, "").strip()
    summable = [row["name"] for row in rows(connection, "list_summable_meters")]
    return choose_names(read_names(text) if text else {}, summable)


def find_api(environment: Mapping[str, str]) -> Api:
    """Return the way to Stripe. Raises TaximeterError `config_invalid` for anything but v1 and v2."""
    text = environment.get(API_VARIABLE, "").strip().lower()
    if text and text not in set(Api):
        raise TaximeterError(
            "config_invalid", f"{API_VARIABLE}: expected v1 (an event a call) or v2 (the stream), got {text!r}"
        )
    return Api(text or "v1")


def _since(environment: Mapping[str, str]) -> datetime | None:
    text = environment.get(SINCE_VARIABLE, "").strip()
    if not text:
        return None
    try:
        return instant(text)
    except argparse.ArgumentTypeError as error:
        raise TaximeterError("config_invalid", f"{SINCE_VARIABLE}: {error}") from error


def _send(
    connection: Connection, url: str, stripe: StripeSettings, names: dict[str, str], api: Api, *, ask: bool
) -> tuple[Sent, TaximeterError | None]:
    """Send what is made; what stopped the whole of it is returned, to be raised after the report."""
    sent = Sent()
    try:
        if ask:
            _confirm(connection)
        with _shown("sending meter events") as shown:
            send_events(connection, url, stripe, names, api, sent, shown)
    except TaximeterError as error:
        return sent, error
    return sent, None


def _confirm(connection: Connection) -> None:
    """Ask before real money moves. Raises TaximeterError `not_confirmed` unless the answer is yes."""
    (counted,) = rows(connection, "count_metered_events", {"oldest": AGE_MAX})
    sys.stderr.write(f"send {counted['count']} meter events ({_units(counted['units'])} units) to Stripe, LIVE? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TaximeterError("not_confirmed", "nothing was sent; the meter events are made and wait")


def _preview(connection: Connection, wanted: Wanted, *, as_json: bool) -> int:
    """Show what would be made and wait to be sent; nothing is kept."""
    with connection.transaction(force_rollback=True):
        held = take_usage(connection, wanted, lambda _done, _of: None)
        _report(connection, Sent(), held, as_json=as_json)
    return _TRY_AGAIN if held else _DONE


def _report(connection: Connection, sent: Sent, held: list[Held], *, as_json: bool) -> int:
    """Print what was sent, is carried, parked and waiting; return how many are parked."""
    sums = [{"meter": meter, "events": sent.events[meter], "units": _units(sent.units[meter])} for meter in sent.events]
    carried = [{**row, "units": _units(row["units"])} for row in rows(connection, "sum_carries")]
    listed = rows(connection, "list_metered_events", {"customer": None, "state": "parked", "limit": SHOWN_MAX})
    parked = [event_json(row) for row in listed]
    waiting = [_held_json(one) for one in held[:SHOWN_MAX]]
    for row in rows(connection, "sum_metered_events", {"state": "pending"}):
        why = NotYet(row["reason"] or "stripe_unavailable", row["detail"] or "the next run sends it")
        waiting.append(
            {**_held_json(Held("", row["meter"], why)), "events": row["events"], "units": _units(row["units"])}
        )
    counted = _count(connection, "parked")
    if as_json:
        print_json({"sent": sums, "carried": carried, "parked": parked, "waiting": waiting})
        return counted
    for one in sums:
        sys.stdout.write(f"sent: {one['units']} units of {one['meter']} in {one['events']} events\n")
    for one in carried:
        sys.stdout.write(f"carried: {one['units']} units of {one['meter']}, of {one['customers']} customers\n")
    for one in waiting:
        what = f"{one['units']} units of {one['meter']}" if one["events"] else f"{one['customer']} {one['meter']}"
        sys.stdout.write(f"waiting: {what.strip() or 'usage'}: {one['reason']}: {one['detail']}\n")
    for one in parked:
        what = f"{one['id']} ({one['units']} units of {one['meter']}, {one['customer']}, {one['hour']})"
        sys.stdout.write(f"parked: {what}: {one['reason']}: {one['detail']}\n")
    if counted > len(parked):
        sys.stdout.write(f"parked: {counted - len(parked)} more; `taximeter meters` lists them\n")
    if not (sums or waiting or parked):
        sys.stdout.write("nothing new to send\n")
    return counted


def event_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a meter event that is not sent in the shape of the reports."""
    return {
        "id": row["identifier"],
        "customer": row["customer"],
        "meter": row["meter"],
        "hour": f"{row['hour']:%Y-%m-%dT%H:%M:%SZ}",
        "units": _units(row["units"]),
        "state": row["state"],
        "reason": row["reason"],
        "detail": row["detail"],
    }


def _held_json(held: Held) -> dict[str, Any]:
    why = {"reason": held.why.reason, "detail": held.why.detail}
    return {"customer": held.customer or None, "meter": held.meter or None, **why, "events": 0, "units": None}


def _count(connection: Connection, state: str) -> int:
    return sum(int(row["events"]) for row in rows(connection, "sum_metered_events", {"state": state}))


def _units(units: Decimal) -> str:
    return format_units(from_decimal(units))


@contextmanager
def _shown(text: str) -> Iterator[Progress]:
    """Show a progress bar on standard error, only where that is a terminal."""
    with progress() as bar:
        task = bar.add_task(text, total=None, note="")
        yield lambda done, of: bar.update(task, completed=done, total=of or None)
