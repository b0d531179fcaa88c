"""The program: a process over real servers, its exit status, its sockets, its log, and its stop."""

import asyncio
import json
import os
import signal
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from flusher.worker import Worker
from tests.sidecar.support import GOOD, until

NOWHERE = "redis://127.0.0.1:1"


class Running:
    """A sidecar process and a client of its Unix socket."""

    def __init__(self, process: Process, socket_path: Path, client: aiohttp.ClientSession) -> None:
        self.process = process
        self.socket_path = socket_path
        self.client = client

    async def until_ready(self, worker: Worker | None = None) -> None:
        """Waits until events are accepted; the worker registers the sidecar meanwhile."""
        async with asyncio.timeout(30):
            while True:
                if worker is not None:
                    await asyncio.to_thread(worker.run_once)
                async with self.client.get("/readyz") as response:
                    if response.status == 200:
                        return
                await asyncio.sleep(0.05)

    async def stop(self) -> tuple[int, list[dict[str, str]]]:
        """Asks it to stop and returns its exit status and its log lines."""
        self.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(self.process.communicate(), timeout=30)
        return self.process.returncode or 0, [json.loads(line) for line in log.splitlines()]


async def start_process(*flags: str) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TAXIMETER_", "REDIS_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", *flags, stdout=PIPE, stderr=PIPE, env=environment
    )


@asynccontextmanager
async def sidecar(redis_url: str, directory: Path, *flags: str) -> AsyncIterator[Running]:
    """Runs a sidecar on a Unix socket alone, until the end of the block."""
    path = directory / "api.sock"
    arguments = ["--redis-url", redis_url, "--journal-dir", str(directory / "journal"), "--socket", str(path)]
    process = await start_process(*arguments, "--http", "", *flags)
    async with aiohttp.ClientSession("http://sidecar", connector=aiohttp.UnixConnector(str(path))) as client:
        try:
            await until(lambda: path.exists() or process.returncode is not None)
            yield Running(process, path, client)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def test_events_go_all_the_way_and_a_repeat_is_a_duplicate(
    redis_url: str, database_url: str, server_dir: Path
) -> None:
    # Given a sidecar that a flusher registers
    worker = Worker.connect(redis_url, database_url)
    async with sidecar(redis_url, server_dir) as running:
        await running.until_ready(worker)

        # When the same events come twice
        events = [{**GOOD, "id": f"e-{number}", "units": "0.1"} for number in range(10)]
        answers = []
        for _ in range(2):
            async with running.client.post("/v1/events", json=events) as response:
                answers.append((response.status, await response.json()))

        # Then they are applied once, and live usage says so at once
        assert [(status, answer["accepted"], answer["duplicates"]) for status, answer in answers] == [
            (200, 10, 0),
            (200, 0, 10),
        ]
        async with running.client.get("/v1/usage?user_id=cus_1") as response:
            (row,) = (await response.json())["usage"]
        assert (row["customer"], row["meter"], row["units"], row["events"]) == ("cus_1", "api_call", "1", 10)

        # And a stop ends it in order
        assert (await running.stop())[0] == 0
        assert not running.socket_path.exists()
    worker.close()


async def test_a_key_used_again_with_another_body_is_refused(
    redis_url: str, database_url: str, server_dir: Path
) -> None:
    worker = Worker.connect(redis_url, database_url)
    async with sidecar(redis_url, server_dir) as running:
        await running.until_ready(worker)
        statuses = []
        for units in (1, 1, 2):
            event = {"user_id": "cus_1", "event_type": "api_call", "units": units}
            headers = {"Idempotency-Key": "batch-1"}
            async with running.client.post("/v1/events", json=event, headers=headers) as response:
                answer = await response.json(content_type=None)
                statuses.append((response.status, answer.get("duplicates"), answer.get("code")))

    assert statuses == [(200, 0, None), (200, 1, None), (422, None, "idempotency_key_reused")]
    worker.close()


async def test_without_redis_it_lives_and_is_not_ready(server_dir: Path) -> None:
    async with sidecar(NOWHERE, server_dir) as running:
        async with running.client.get("/livez") as response:
            assert response.status == 200
        async with running.client.post("/v1/events", json=GOOD) as response:
            assert response.status == 503
            assert (await response.json(content_type=None))["code"] == "not_registered"
        status, log = await running.stop()

    assert status == 0
    assert [line["message"] for line in log if line["logger"] == "sidecar.app"] == ["serving", "stopping", "stopped"]
    assert all(line["time"] and line["level"] for line in log)


async def test_the_socket_has_the_mode_of_the_setting(server_dir: Path) -> None:
    async with sidecar(NOWHERE, server_dir, "--socket-mode", "0600") as running:
        assert stat.S_IMODE(running.socket_path.stat().st_mode) == 0o600


async def test_a_killed_one_leaves_a_socket_that_the_next_replaces(server_dir: Path) -> None:
    async with sidecar(NOWHERE, server_dir) as running:
        running.process.kill()
        await running.process.communicate()
    assert running.socket_path.exists()

    async with sidecar(NOWHERE, server_dir) as running, asyncio.timeout(30):
        while True:
            try:
                async with running.client.get("/livez") as response:
                    assert response.status == 200
                    break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)


async def test_a_journal_has_one_sidecar(server_dir: Path) -> None:
    async with sidecar(NOWHERE, server_dir) as running:
        flags = ["--journal-dir", str(server_dir / "journal"), "--redis-url", NOWHERE, "--http", "127.0.0.1:0"]
        second = await start_process(*flags)
        _, errors = await asyncio.wait_for(second.communicate(), timeout=30)

        assert second.returncode == 1
        assert errors.startswith(b"error: journal_locked: ")
        assert running.process.returncode is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], b"error: config_invalid: --redis-url or TAXIMETER_REDIS_URL: expected URL"),
        (["--http", "0.0.0.0:8130"], b"can be reached from other machines; name a --token-file"),
        (["--http", "127.0.0.1:0", "--token-file", "/nowhere"], b"--token-file: /nowhere can't be read"),
        (
            ["--socket", "/nowhere", "--stream-socket", "/nowhere"],
            b"--stream-socket: expected another path than --socket",
        ),
        (["--socket-mode", "x"], b"--socket-mode: expected an octal file mode"),
        (["--sockets", "/tmp/x"], b"unrecognized arguments: --sockets"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
async def test_a_bad_setting_is_wrong_use(flags: list[str], message: bytes, server_dir: Path) -> None:
    given = ["--redis-url", NOWHERE, "--journal-dir", str(server_dir / "journal")] if flags else []
    process = await start_process(*given, *flags)
    _, errors = await asyncio.wait_for(process.communicate(), timeout=30)

    assert process.returncode == 2
    assert message in errors


async def test_tcp_is_served_where_the_setting_says(server_dir: Path) -> None:
    flags = ["--redis-url", NOWHERE, "--journal-dir", str(server_dir / "journal"), "--http", "127.0.0.1:0"]
    process = await start_process(*flags)
    try:
        stderr = process.stderr
        assert stderr is not None
        line = json.loads(await asyncio.wait_for(stderr.readline(), timeout=30))
        while line["message"] != "serving":
            line = json.loads(await asyncio.wait_for(stderr.readline(), timeout=30))
        async with aiohttp.ClientSession(f"http://{line['http']}") as client, client.get("/livez") as response:
            assert response.status == 200
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), timeout=30)
