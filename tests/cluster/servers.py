"""A Valkey Cluster of real processes: three primaries that share the slots, and replicas of those that are named."""

import contextlib
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import redis

from flusher.embedded.valkey import ValkeyServer
from sidecar.contract import keys
from sidecar.contract.codes import TaximeterError
from sidecar.contract.slots import SLOTS, slot_of
from tests.faults.processes import wait_until

PRIMARIES: Final = 3
PATIENCE_S: Final = 20.0
ATTEMPTS_MAX: Final = 5  # another process may take a port before a server does
OPTIONS: Final = {
    "appendonly": "no",
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-replica-validity-factor": "0",  # a replica takes over however far behind it is
    "cluster-allow-replica-migration": "no",
    "repl-diskless-sync-delay": "0",
}


class Node:
    """A server of the cluster."""

    def __init__(self, directory: Path, options: Mapping[str, str]) -> None:
        self._options = {**OPTIONS, **options}
        self.server = self._start(directory)
        self.client = redis.Redis.from_url(self.server.url, socket_timeout=10)
        self.id: str = self.run("CLUSTER", "MYID").decode()

    def _start(self, directory: Path) -> ValkeyServer:
        for attempt in range(ATTEMPTS_MAX):
            self.port, self._bus = _free_ports()
            options = {**self._options, "cluster-port": str(self._bus)}
            server = ValkeyServer(directory / str(attempt), options=options, tcp_port=self.port)
            with contextlib.suppress(TaximeterError):
                server.start()
                return server
        raise RuntimeError("no ports were free")

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def run(self, *command: Any) -> Any:
        """Runs a command on it, past all routes."""
        return cast("Any", self.client).execute_command(*command)

    def meet(self, other: "Node") -> None:
        """Makes another one known to it, and so to all."""
        self.run("CLUSTER", "MEET", "127.0.0.1", other.port, other._bus)

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes."""
        return bool(self.run("ROLE")[0] == b"master")

    @property
    def is_in_step(self) -> bool:
        """Whether it is a replica that has all that its primary has."""
        role = self.run("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")

    def sees_all(self, count: int) -> bool:
        """Whether it knows so many servers and a primary of every slot."""
        info = cast("dict[str, str]", self.run("CLUSTER INFO"))
        return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", str(count))

    def end(self) -> None:
        """Ends it."""
        self.client.close()
        self.server.kill()


class Cluster:
    """Three primaries with equal parts of the slots, in this order, and a replica of each that is in `replicas_of`.

    `options` are settings of the servers, beside `OPTIONS`.
    """

    def __init__(
        self, directory: Path, replicas_of: Iterable[int] = (), options: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.primaries = [Node(directory / f"primary{number}", options) for number in range(PRIMARIES)]
        self.replicas = {number: Node(directory / f"replica{number}", options) for number in replicas_of}
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, node in enumerate(self.primaries):
            node.run("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.primaries[0].meet(node)
        self.wait_ok()
        for number, replica in self.replicas.items():
            replica.run("CLUSTER", "REPLICATE", self.primaries[number].id)
        wait_until(lambda: all(one.is_in_step for one in self.replicas.values()), PATIENCE_S, "the replicas follow")

    @property
    def nodes(self) -> list[Node]:
        """All of them that run."""
        return [node for node in (*self.primaries, *self.replicas.values()) if node.server.pid is not None]

    @property
    def url(self) -> str:
        """The address that names all hosts."""
        return "redis://" + ",".join(node.address for node in (*self.primaries, *self.replicas.values()))

    def wait_ok(self) -> None:
        """Waits until all that run know each other, and a primary of every slot."""
        count = PRIMARIES + len(self.replicas)
        wait_until(lambda: all(node.sees_all(count) for node in self.nodes), PATIENCE_S, "the cluster is complete")

    def home(self, shard: int) -> Node:
        """Returns the primary that has a shard."""
        return self.home_of(keys.state(shard))

    def home_of(self, key: str) -> Node:
        """Returns the primary that has a key, as the first server that runs knows it."""
        slot = slot_of(key)
        for row in self.nodes[0].run("CLUSTER", "SLOTS"):
            if row[0] <= slot <= row[1]:
                return next(node for node in self.nodes if node.port == row[2][1])
        raise LookupError(f"no primary has {key}")

    def end(self) -> None:
        """Ends them all."""
        for node in self.nodes:
            node.end()


class Moving:
    """A shard's slot on its way from one primary to another, key by key."""

    def __init__(self, cluster: Cluster, shard: int, target: Node) -> None:
        self._cluster, self._target = cluster, target
        self._source = cluster.home(shard)
        self.slot = slot_of(keys.state(shard))
        target.run("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self._source.id)
        self._source.run("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target.id)

    def move(self, count: int) -> int:
        """Moves so many keys, and returns how many there were."""
        names = self._source.run("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if names:
            self._source.run("MIGRATE", "127.0.0.1", self._target.port, "", 0, 5_000, "KEYS", *names)
        return len(names)

    def finish(self) -> None:
        """Moves all that is left, and tells everybody where the slot is now."""
        while self.move(500):
            pass
        for node in (self._target, self._source, *self._cluster.primaries):
            if node.is_primary:
                node.run("CLUSTER", "SETSLOT", self.slot, "NODE", self._target.id)


def _free_ports() -> tuple[int, int]:
    """Returns two ports that nobody uses now: for clients, and for the other servers."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
