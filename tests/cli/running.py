"""A real `taximeter up` in a process of its own, for tests that send to it, kill it and start it again."""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from flusher.embedded.process import die_with_parent, wait_until
from flusher.embedded.system import free_address

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0
# Addresses that must never be used: `up` would fail at once if it tried.
POISON = {
    "REDIS_URL": "redis://poison.invalid:1",
    "DATABASE_URL": "postgresql://poison.invalid:1/x",
    "STRIPE_API_KEY": "sk_live_poison",
    "STRIPE_API_BASE": "http://poison.invalid:1",
}


class Up:
    """One run of `taximeter up` on ``data_dir``; it is ready when the constructor returns."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.said = data_dir.with_name(f"{data_dir.name}.out")
        address = free_address().text
        command = [sys.executable, "-m", "flusher", "up", "--data-dir", str(data_dir), "--http", address, *arguments]
        with self.said.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **POISON},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # a test run that is killed leaves nothing behind
            )
        ended_or_ready = wait_until(
            lambda: self.process.poll() is not None or "Ctrl-C" in self.output(), deadline_s=START_DEADLINE_S
        )
        if not ended_or_ready or self.process.poll() is not None:
            self.close()
            raise AssertionError(f"`up` did not start: {self.output()}")

    def output(self) -> str:
        return self.said.read_text(encoding="utf-8")

    @property
    def endpoints(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.data_dir / "endpoints.json").read_text(encoding="utf-8"))
        return loaded

    @property
    def children(self) -> list[int]:
        return [pid for name, pid in self.endpoints["pids"].items() if name != "up"]

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request to the sidecar and return the status and the JSON of the answer."""
        host, _, port = self.endpoints["http"].removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            is_json = "json" in (answer.headers["Content-Type"] or "")
            return answer.status, json.loads(content) if is_json else None
        finally:
            connection.close()

    def send(self, *events: dict[str, object]) -> dict[str, Any]:
        """Send events, which must be accepted, and return the answer."""
        status, answer = self.request("POST", "/v1/events", list(events))
        assert status in {200, 202}, answer
        assert isinstance(answer, dict)
        return answer

    def command(self, *arguments: str) -> Any:
        """Run another command on this system, which must succeed, and return its JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "flusher", *arguments, "--data-dir", str(self.data_dir), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_DEADLINE_S)

    def kill(self) -> None:
        """Kill it with SIGKILL, and only it."""
        self.process.kill()
        self.process.wait(STOP_DEADLINE_S)

    def close(self) -> None:
        """End it however it is; its children follow."""
        if self.process.poll() is None:
            self.kill()
