"""Which server has which key: one server has all, or each primary of a cluster has those of its slots.

A server that is a cluster's says so itself, when it is asked `CLUSTER SLOTS`; no setting does.
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sidecar.contract.codes import TaximeterError

SLOTS: Final = 16_384
QUESTION: Final = ("CLUSTER", "SLOTS")


def slot_of(key: bytes | str) -> int:
    """Return the slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it where it has none."""
    name = key.encode() if isinstance(key, str) else key
    begin = name.find(b"{")
    end = name.find(b"}", begin + 1)
    return crc_hqx(name[begin + 1 : end] if 0 <= begin < end - 1 else name, 0) % SLOTS


def urls_of(url: str) -> tuple[str, ...]:
    """Return a URL for each host of one that names several, with commas between. Raises ValueError for a bad port."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        urls: tuple[str, ...] = (url,)
    else:
        urls = tuple(parts._replace(netloc=user + at + host).geturl() for host in hosts.split(","))
    if any(urlsplit(each).port == 0 for each in urls):
        raise ValueError("port 0")
    return urls


def address_of(url: str) -> str:
    """Return the host and port, or the path, of a URL: what may be shown."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


class SlotRange(NamedTuple):
    """The slots from `first` to `last`, which the server at `url` has."""

    first: int
    last: int
    url: str


class Servers(NamedTuple):
    """Where the keys are. `cluster`: as `CLUSTER SLOTS` said; else one server has all."""

    cluster: bool
    ranges: tuple[SlotRange, ...]

    def url_of(self, key: bytes | str) -> str | None:
        """Return the address of the server that has the key; None while no primary of the cluster has its slot."""
        slot = slot_of(key)
        return next((found.url for found in self.ranges if found.first <= slot <= found.last), None)

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all of them, each once."""
        return tuple(dict.fromkeys(found.url for found in self.ranges))

    @property
    def uncovered(self) -> int:
        """How many slots no server has."""
        return SLOTS - sum(found.last - found.first + 1 for found in self.ranges)


class Finder:
    """Knows whom to ask where the keys are: the servers that were named, and those that the answers named.

    Each look-up begins with another one, so that a server that is gone, or does not know, is asked once and no more.
    """

    def __init__(self, url: str) -> None:
        self._named = urls_of(url)
        self._known: tuple[str, ...] = ()
        self._turn = 0

    def candidates(self) -> tuple[str, ...]:
        """Return whom to ask, in this order, until one answers."""
        urls = tuple(dict.fromkeys((*self._known, *self._named)))
        self._turn = (self._turn + 1) % len(urls)
        return urls[self._turn :] + urls[: self._turn]

    def learn(self, asked: str, reply: Sequence[Any] | None) -> Servers:
        """Return what the reply to `QUESTION` says, None that it was refused: then it is no cluster.

        Raises TaximeterError `config_invalid` when several hosts were named that are none.
        """
        if reply is None:
            if len(self._named) > 1:
                raise TaximeterError(
                    "config_invalid",
                    "the Redis URL names several hosts, and one of them is no cluster, or denies CLUSTER SLOTS "
                    "(+cluster|slots of its ACL); name one host, or those of one cluster",
                )
            return Servers(cluster=False, ranges=(SlotRange(0, SLOTS - 1, asked),))
        nodes = [node for row in reply for node in row[2:] if node[0] != b"?"]
        self._known = tuple(dict.fromkeys(_url_of(asked, node) for node in nodes))
        ranges = [SlotRange(int(row[0]), int(row[1]), _url_of(asked, row[2])) for row in reply if row[2][0] != b"?"]
        return Servers(cluster=True, ranges=tuple(ranges))


def _url_of(asked: str, node: Sequence[Any]) -> str:
    """Return the address of a node as [host, port, ...]: with the user, password and options of the one asked.

    A node whose host is not known to the cluster is on the host that was asked.
    """
    parts = urlsplit(asked)
    user, at, _ = parts.netloc.rpartition("@")
    host = node[0].decode() if node[0] else parts.hostname or "127.0.0.1"
    place = f"[{host}]:{node[1]}" if ":" in host else f"{host}:{node[1]}"
    unix = parts.scheme == "unix"
    return parts._replace(
        scheme="redis" if unix else parts.scheme, netloc=user + at + place, path="" if unix else parts.path
    ).geturl()
