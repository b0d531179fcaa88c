"""Clusters for the tests of this folder."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.servers import Cluster
from tests.cluster.system import System
from tests.conftest import make_server_dir
from tests.faults.nursery import Nursery


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    directory = make_server_dir()
    cluster = Cluster(directory)
    yield cluster
    cluster.end()
    shutil.rmtree(directory)


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """One for all tests of a worker, emptied: never kill a server of it, and leave the slots where they are."""
    for node in _cluster.primaries:
        node.client.flushall()
        node.client.script_flush()
    return _cluster


@pytest.fixture
def make_cluster(server_dir: Path) -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(replicas_of=[1])`: one of this test alone."""
    made: list[Cluster] = []

    def make(replicas_of: tuple[int, ...] = ()) -> Cluster:
        made.append(Cluster(server_dir / f"cluster{len(made)}", replicas_of))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture(scope="session")
def _nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def make_system(tmp_path: Path, _nursery: Nursery) -> Iterator[Callable[[str, str], System]]:
    """`make_system(redis_url, database_url)`: programs that end with the test."""
    made: list[System] = []

    def make(redis_url: str, database_url: str) -> System:
        made.append(System(redis_url, database_url, tmp_path, _nursery))
        return made[-1]

    yield make
    for one in made:
        one.close()
