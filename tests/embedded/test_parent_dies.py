"""Embedded servers end with the process that started them, and come back with what they had."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.embedded.support import BOTH_SERVERS, Parent, gone_within


@pytest.fixture
def parent(server_dir: Path) -> Iterator[Parent]:
    started = Parent(BOTH_SERVERS, str(server_dir))
    yield started
    started.close()


def test_servers_end_when_their_parent_is_killed(parent: Parent) -> None:
    parent.kill()
    assert gone_within(parent.servers, deadline_s=60)


def test_a_killed_system_starts_again_at_once_with_its_data(parent: Parent, server_dir: Path) -> None:
    # Given data in both servers
    with redis.Redis.from_url(parent.said["redis_url"]) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
    with psycopg.connect(parent.said["database_url"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'yes' AS value")
    # When their parent is killed and, without any pause, started again on the same directory
    parent.kill()
    again = Parent(BOTH_SERVERS, str(server_dir))
    # Then the data are there
    with redis.Redis.from_url(again.said["redis_url"]) as client:
        assert client.get("kept") == b"yes"
    with psycopg.connect(again.said["database_url"]) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == ("yes",)
    again.close()


def test_an_interrupt_in_the_terminal_does_not_reach_the_servers(parent: Parent) -> None:
    # A terminal sends its interrupt to the process group in its foreground, which is the parent's
    groups = {os.getpgid(pid) for pid in parent.servers}
    assert groups == set(parent.servers)
    assert os.getsid(parent.said["valkey"]) == parent.said["valkey"]
