"""A store for each Redis that there is. The machine may be busy, so no property has a deadline.

`store` runs a test on fakeredis, on Valkey, and on `redis-server` where it is on PATH (in CI always: Debian's is
Redis 7.0). A test that fakeredis can't run is marked `not_on_fakeredis("why")` and does not run there.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import fakeredis
import pytest
import redis
from hypothesis import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from flusher.embedded.valkey import ValkeyServer
from tests.contract.store import Store

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "not_on_fakeredis(why): the test runs on real servers only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" not in metafunc.fixturenames:
        return
    servers = ["valkey"]
    if metafunc.definition.get_closest_marker("not_on_fakeredis") is None:
        servers.insert(0, "fakeredis")
    if shutil.which("redis-server") or os.environ.get("CI") == "true":
        servers.append("redis-server")
    metafunc.parametrize("store", servers, indirect=True)


def connect(url: str) -> redis.Redis:
    """Returns a client that never repeats a command."""
    return redis.Redis.from_url(url, socket_timeout=15, retry=Retry(NoBackoff(), 0), protocol=2)


@pytest.fixture
def store(request: pytest.FixtureRequest, _shared_valkey: Callable[[str | None], ValkeyServer]) -> Iterator[Store]:
    if request.param == "fakeredis":
        yield Store(fakeredis.FakeRedis(server_type="valkey"), knows_shebang=False)
        return
    client = connect(_shared_valkey(None if request.param == "valkey" else request.param).url)
    client.flushall()
    yield Store(client)
    client.close()
