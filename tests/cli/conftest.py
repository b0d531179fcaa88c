"""A running system that the tests of a worker share. Each test uses customers of its own, and leaves it running."""

import shutil
from collections.abc import Iterator

import pytest

from tests.cli.running import Up
from tests.conftest import make_server_dir


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """A `taximeter up` with nothing in its catalog."""
    directory = make_server_dir()
    running = Up(directory / "data")
    yield running
    running.interrupt()
    running.close()
    shutil.rmtree(directory)
