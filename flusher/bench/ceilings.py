"""What nobody gets past: a bare aiohttp handler as a program, and PostgreSQL taking rows that are ready.

`python -m flusher.bench.ceilings PORT` is the handler: it reads the body and answers 200.
"""

import asyncio
import secrets
import sys
import time
from typing import Final

import psycopg
import uvloop
from aiohttp import web
from psycopg.rows import TupleRow

from flusher.bench.requests import USERS
from flusher.sql import query

_ANSWER: Final = b'{"status":"applied","accepted":1,"duplicates":0,"conflicts":0,"rejected":0,"results":[]}'


async def serve(port: int, application: web.Application) -> None:
    """Serve an application on loopback until the process is ended."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def _read(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=_ANSWER, content_type="application/json")


def bare() -> web.Application:
    """Return the handler that does nothing but what HTTP costs."""
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_post("/v1/events", _read)
    return application


class Inserts:
    """Two tables shaped like `events`, key included, and rows for them that are ready to be copied."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        """Make the tables with a connection that commits by itself; drop them with `close`."""
        self._connection = connection
        for name in ("bench_make_inserted", "bench_make_copied", "bench_make_staged"):
            connection.execute(query(name))

    def close(self) -> None:
        """Drop the tables."""
        self._connection.execute(query("bench_drop"))

    def staging(self, rows: bytes) -> float:
        """Copy into a temporary table, insert from there what is new, commit; return the seconds it took."""
        began_at = time.perf_counter()
        with self._connection.transaction():
            self._copy("bench_copy_staged", rows)
            self._connection.execute(query("bench_insert_staged"))
        return time.perf_counter() - began_at

    def copying(self, rows: bytes) -> float:
        """Copy right into the other table, commit; return the seconds it took."""
        began_at = time.perf_counter()
        with self._connection.transaction():
            self._copy("bench_copy", rows)
        return time.perf_counter() - began_at

    def _copy(self, name: str, rows: bytes) -> None:
        with self._connection.cursor() as cursor, cursor.copy(query(name)) as copy:
            copy.write(rows)


def rows_of(count: int) -> bytes:
    """Return so many new events as COPY takes them: of `USERS` users in turn, keys at random as hashes are."""
    run = secrets.token_hex(4)
    now = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime())
    return "".join(
        f"{now}\t\\\\x{secrets.token_hex(16)}\t\\\\x{secrets.token_hex(8)}\t0\t0\t1\t{now}\tcus_{place % USERS:06}\t\t"
        f"{run}-{place:017}\tapi_call\t1\t\\N\t\\N\n"  # no properties, not voided
        for place in range(count)
    ).encode()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), bare()))
