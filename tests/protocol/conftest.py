"""A whole system in one process: the ingest core and the flusher's worker over real servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar import directory, ingest
from tests.protocol.system import System

POLL_S = 0.05  # half a second is a long wait for each of many tests; nothing here depends on it


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "POLL_S", POLL_S)
    monkeypatch.setattr(ingest, "MEND_POLL_S", POLL_S)


@pytest.fixture
async def system(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[System]:
    made = System(redis_url, database_url, tmp_path)
    yield made
    await made.close()
