"""Starting another Python that starts servers, so that a test can kill it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from flusher.embedded.process import die_with_parent, wait_until

_ROOT = Path(__file__).parents[2]
_DEADLINE_S = 30.0

BOTH_SERVERS = """
import json, sys, time
from pathlib import Path
from flusher.embedded.postgres import PostgresServer
from flusher.embedded.valkey import ValkeyServer
home = Path(sys.argv[1])
valkey = ValkeyServer(home / "valkey")
valkey.start()
postgres = PostgresServer(home / "postgres")
postgres.start()
said = {"valkey": valkey.pid, "postgres": postgres.pid, "redis_url": valkey.url, "database_url": postgres.url}
print(json.dumps(said), flush=True)
time.sleep(600)
"""


class Parent:
    """A Python process that runs ``script`` with ``arguments`` and has said one line of JSON."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),  # a test run that is killed leaves nothing behind
        )
        assert self.process.stdout is not None
        with self.process.stdout as answers:
            line = answers.readline()
        assert line, f"the parent ended with status {self.process.wait(_DEADLINE_S)}"
        self.said = json.loads(line)
        self.servers = [self.said["valkey"], self.said["postgres"]]

    def kill(self) -> None:
        """Kill it, and only it."""
        self.process.kill()
        self.process.wait(_DEADLINE_S)

    def close(self) -> None:
        """Kill it and wait until its servers are gone too."""
        self.kill()
        assert gone_within(self.servers, deadline_s=60)


def is_gone(pid: int) -> bool:
    """Say whether a process, not necessarily a child of ours, has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def gone_within(pids: list[int], *, deadline_s: float) -> bool:
    return wait_until(lambda: all(is_gone(pid) for pid in pids), deadline_s=deadline_s)
