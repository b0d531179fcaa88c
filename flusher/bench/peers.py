"""What people write first, to compare with: `python -m flusher.bench.peers article|two-step PORT`.

Both take one event a request, as such endpoints do, and both are as good as their idea: one process, a pool of
connections, no logging, uvloop.
"""

import asyncio
import json
import os
import shutil
import sys
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import uvloop
from aiohttp import web
from redis.asyncio import BlockingConnectionPool, Redis

from flusher.bench.ceilings import serve
from flusher.sql import query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECTIONS: Final = 16
TTL_S: Final = 86_400


class Article:
    """The endpoint of the article: a request is an event, an event is an INSERT, committed before the answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._free: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()

    async def start(self, _application: web.Application) -> None:
        """Make the table and the pool."""
        for number in range(CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            if not number:
                await connection.execute(query("bench_make_article"))
            self._free.put_nowait(connection)

    async def track(self, request: web.Request) -> web.Response:
        """Take one event."""
        event = await request.json()
        time = datetime.fromisoformat(event["timestamp"])
        async with self._connection() as connection:
            await connection.execute(
                query("bench_insert_article"), (event["user_id"], event["event_type"], event["units"], time)
            )
        return web.json_response({"success": True})

    @asynccontextmanager
    async def _connection(self) -> "AsyncIterator[psycopg.AsyncConnection[Any]]":
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)


class TwoStep:
    """A sidecar as it is usually drawn: SET NX to know a repeat, then INCR. A crash in between loses the event."""

    def __init__(self, url: str) -> None:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS)
        self._redis = Redis.from_pool(pool)

    async def track(self, request: web.Request) -> web.Response:
        """Take one event."""
        event = await request.json()
        if await self._redis.set(f"seen:{event['id']}", 1, nx=True, ex=TTL_S):
            hour = event["timestamp"][:13]
            await self._redis.incrby(f"usage:{event['user_id']}:{event['event_type']}:{hour}", event["units"])
        return web.json_response({"success": True})


def article() -> web.Application:
    """Return the article's endpoint."""
    peer = Article(os.environ["TAXIMETER_DATABASE_URL"])
    application = web.Application()
    application.on_startup.append(peer.start)
    application.router.add_post("/track", peer.track)
    return application


def two_step() -> web.Application:
    """Return the two-step sidecar."""
    application = web.Application()
    application.router.add_post("/track", TwoStep(os.environ["TAXIMETER_REDIS_URL"]).track)
    return application


def webdis() -> str | None:
    """Return the program webdis, a gateway in C, where it is installed."""
    return shutil.which("webdis")


def write_webdis_settings(path: Path, redis_socket: Path, port: int) -> None:
    """Write what webdis needs to work on our server in the foreground."""
    settings = {
        "redis_host": str(redis_socket),
        "http_host": "127.0.0.1",
        "http_port": port,
        "threads": 2,
        "pool_size": CONNECTIONS,
        "daemonize": False,
        "verbosity": 0,
        "logfile": os.devnull,
    }
    path.write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[2]), article() if sys.argv[1] == "article" else two_step()))
