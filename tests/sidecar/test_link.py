"""The ordered connection: whatever goes wrong on it is one of LINK_ERRORS, and it is never used again."""

from collections.abc import Callable

import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from flusher.embedded.valkey import ValkeyServer
from sidecar.link import LINK_ERRORS, RedisServer


@pytest.mark.parametrize("error", [AttributeError("no writer"), RuntimeError("the handler is closed"), OSError()])
@pytest.mark.parametrize("what", ["send_packed_command", "read_response"])
async def test_a_connection_that_goes_away_under_a_command_is_an_error_of_the_link(
    redis_url: str, what: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a link whose connection another task, or the transport, closes while a command is under way
    link = await RedisServer(redis_url).connect("key")
    assert await link.request("PING") == b"PONG"

    async def gone(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(link._connection, what, gone)
    # when a command is sent, then that is said, and the link is closed for good
    with pytest.raises(LINK_ERRORS):
        await link.request("PING")
    monkeypatch.undo()
    with pytest.raises(LINK_ERRORS):
        await link.send(("PING",))
    await link.close()


async def test_a_redis_that_denies_the_question_for_its_cluster_is_one_server(
    start_valkey: Callable[..., ValkeyServer],
) -> None:
    server = start_valkey(appendonly="no")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "default", "-cluster")
    link = await RedisServer(server.url).connect("key")
    assert await link.request("PING") == b"PONG"
    await link.close()


async def test_a_client_whose_connection_goes_away_says_so(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = RedisServer(redis_url).clients()
    client = await clients.at("key")

    async def gone(*_: object, **__: object) -> None:
        raise RuntimeError("the handler is closed")

    monkeypatch.setattr(AbstractConnection, "send_command", gone)
    with pytest.raises(LINK_ERRORS):
        await client.get("key")
    monkeypatch.undo()
    await clients.aclose()
