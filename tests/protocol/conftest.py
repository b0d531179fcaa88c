"""A whole system in one process: the ingest core and the flusher's worker over real servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.protocol.system import System


@pytest.fixture
async def system(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, database_url, tmp_path)
    yield made
    await made.close()
