"""The servers behind a Redis URL: one, or the primaries of a cluster. Nothing is repeated, no redirection followed."""

from contextlib import suppress
from typing import Any, Final, NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from sidecar.contract.slots import QUESTION, Finder, Servers, address_of

TIMEOUT_S: Final = 15
CONNECT_TIMEOUT_S: Final = 5


class Place(NamedTuple):
    """How far a look through all keys has come: in which server of them, and at which cursor there."""

    server: int = 0
    cursor: int = 0


class Nodes:
    """A client of each server. All methods raise RedisError or OSError when nobody answers.

    Which server has which key is asked once; after `forget` it is asked again.
    """

    def __init__(self, url: str) -> None:
        self._finder = Finder(url)
        self._servers: Servers | None = None
        self._clients: dict[str, redis.Redis] = {}

    def at(self, key: bytes | str) -> redis.Redis:
        """Return a client of the server that has the key, one that never repeats a command by itself."""
        url = self.servers().url_of(key)
        if url is None:
            raise ConnectionRefusedError(f"no primary of the cluster has the slot of {key!r}")
        return self._client(url)

    def infos(self, *sections: str) -> dict[str, dict[str, Any]]:
        """Return these sections of INFO of each server, by its address."""
        found: dict[str, dict[str, Any]] = {}
        for url in self.servers().urls:
            info = found.setdefault(address_of(url), {})
            for section in sections:
                info |= self._client(url).info(section)
        return found

    def scan(self, place: Place, pattern: str, count: int) -> tuple[Place, list[bytes]]:
        """Return about `count` keys behind a place, and the place behind them, which at the end is the first again.

        Servers that came or went meanwhile are met the next time.
        """
        urls = sorted(self.servers().urls)
        at = place if place.server < len(urls) else Place()
        client = cast("Any", self._client(urls[at.server]))
        cursor, names = client.execute_command("SCAN", at.cursor, "MATCH", pattern, "COUNT", count)
        behind = Place(at.server, int(cursor)) if int(cursor) else Place((at.server + 1) % len(urls))
        return behind, names

    def servers(self) -> Servers:
        """Return where the keys are. Raises TaximeterError `config_invalid` for hosts that are no cluster."""
        if self._servers is None:
            self._servers = self._look_up()
            for url in self._clients.keys() - set(self._servers.urls):
                self._clients.pop(url).close()
        return self._servers

    def forget(self) -> None:
        """Ask anew where the keys are, next time."""
        self._servers = None

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _look_up(self) -> Servers:
        *others, last = self._finder.candidates()
        for url in others:
            with suppress(RedisError, OSError):
                return self._finder.learn(url, self._ask(url))
        return self._finder.learn(last, self._ask(last))

    def _ask(self, url: str) -> Any:
        """Return what a server says of its cluster, None where it is in none, or does not tell us."""
        try:
            return cast("Any", self._client(url)).execute_command(*QUESTION)
        except ResponseError:
            return None

    def _client(self, url: str) -> redis.Redis:
        if url not in self._clients:
            self._clients[url] = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        return self._clients[url]
