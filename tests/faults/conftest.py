"""Worlds for the tests of this folder."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import make_server_dir
from tests.faults.nursery import Nursery
from tests.faults.world import Shape, World


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def make_world(nursery: Nursery) -> Iterator[Callable[[Shape], World]]:
    """`make_world(shape)`: a system of real processes in memory, gone with the test."""
    worlds: list[World] = []
    directories: list[Path] = []

    def make(shape: Shape) -> World:
        directories.append(make_server_dir())
        worlds.append(World(directories[-1], shape, nursery))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
