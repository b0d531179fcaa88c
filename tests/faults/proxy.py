"""A TCP proxy in front of one link, whose connections can be cut at any byte, stalled, refused, or lose their reply.

All proxies of a run live in one event loop in a thread of its own; their methods may be called from any thread.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, Literal

CHUNK_BYTES: Final = 65_536
Direction = Literal["up", "down"]  # towards the server, towards the client


class ProxyLoop:
    """The thread in which proxies work."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in the loop and waits for it."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        """Ends the thread."""
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes everything to the Unix socket `upstream`, which may change."""

    def __init__(self, loop: ProxyLoop, name: str, upstream: str) -> None:
        self.name = name
        self.upstream = upstream
        self.refusing = False
        self.cuts = 0
        self.port = 0
        self._loop = loop
        self._budgets: dict[Direction, int] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        loop.run(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Ends it and every connection through it."""
        if self._server is not None:
            self._loop.loop.call_soon_threadsafe(self._server.close)
        self.cut()

    # -- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cuts every connection now."""
        self._loop.loop.call_soon_threadsafe(self._cut)

    def cut_after(self, direction: Direction, count: int) -> None:
        """Cuts the connection that carries the `count`-th byte from now on in a direction, right behind that byte.

        With 0 towards the client the server has done what it was asked, and the whole reply is lost.
        """
        self._budgets[direction] = count

    def stall(self) -> None:
        """Passes nothing on, until `heal`."""
        self._loop.loop.call_soon_threadsafe(self._flowing.clear)

    def heal(self) -> None:
        """Ends every fault."""
        self.refusing = False
        self._budgets.clear()
        self._loop.loop.call_soon_threadsafe(self._flowing.set)

    # -- in the loop --------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, server = await asyncio.open_unix_connection(self.upstream, limit=CHUNK_BYTES)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server, "up", writer))
                group.create_task(self._pump(there, writer, "down", server))
        except* OSError:
            pass
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        source: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            budget = self._budgets.get(direction)
            if budget is not None and len(data) >= budget:
                del self._budgets[direction]
                self.cuts += 1
                source.transport.abort()
                writer.write(data[:budget])
                await writer.drain()
                raise ConnectionResetError
            if budget is not None:
                self._budgets[direction] = budget - len(data)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
