"""The Dockerfile: instructions that exist, files that are there, packages with hashes, users that are not root."""

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.commands import Run, known_variables, problems
from tests.deploy.dockerfile import Dockerfile, is_ignored, words
from tests.deploy.files import DEPLOY, DOCKERFILE, ROOT

IMAGES = ("sidecar", "flusher")
ENOUGH = {
    "sidecar": {"TAXIMETER_REDIS_URL": "redis://redis"},
    "flusher": {"TAXIMETER_REDIS_URL": "redis://redis", "TAXIMETER_DATABASE_URL_FILE": "/secrets/database-url"},
}
_SHIPPED = {".py", ".lua", ".sql"}


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile(DOCKERFILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_its_stages_and_instructions_fit(dockerfile: Dockerfile) -> None:
    assert dockerfile.problems() == []
    assert set(IMAGES) <= dockerfile.stages.keys()


def test_what_is_copied_is_there_and_in_the_context(dockerfile: Dockerfile, rules: list[str]) -> None:
    for source in dockerfile.copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(source, rules), source


def test_the_context_has_the_whole_program_and_no_more(rules: list[str]) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    inside = {line for line in listed.stdout.splitlines() if not is_ignored(line, rules)}
    program = {line for line in listed.stdout.splitlines() if line.startswith(("sidecar/", "flusher/"))}
    assert {path for path in program if Path(path).suffix in _SHIPPED} <= inside
    assert {path.split("/")[0] for path in inside} == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "sidecar",
        "flusher",
        "deploy",
    }
    assert is_ignored("deploy/compose/secrets/stripe_api_key", rules)


def test_packages_are_installed_with_their_hashes_or_from_the_wheel(dockerfile: Dockerfile) -> None:
    commands = [
        text for stage in dockerfile.stages.values() for text in stage.all("RUN") if re.search(r"\bpip\b", text)
    ]
    assert commands
    for command in commands:
        assert "--require-hashes" in command or {"--no-deps", "--no-index"} <= set(command.split()), command


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_the_packages_that_were_pinned_for_it(image: str, dockerfile: Dockerfile) -> None:
    assert f"COPY --from={image}-packages /opt/taximeter /opt/taximeter" in [
        f"COPY {text}" for text in dockerfile.stages[image].all("COPY")
    ]
    assert f"deploy/requirements/{image}.txt /build/" in dockerfile.stages[f"{image}-packages"].all("COPY")
    assert (DEPLOY / "requirements" / f"{image}.txt").exists()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_above_10000(image: str, dockerfile: Dockerfile) -> None:
    user = dockerfile.last(image, "USER")
    assert user is not None
    uid, _, gid = user.partition(":")
    assert min(int(uid), int(gid)) >= 10_000
    assert any(f"useradd --uid {uid} --gid {gid}" in text for text in dockerfile.stages["runtime"].all("RUN"))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_a_command_that_exists(image: str, dockerfile: Dockerfile, tmp_path: Path) -> None:
    assert words(dockerfile.last(image, "ENTRYPOINT") or "") == ["taximeter"]
    environment = dockerfile.environment(image)
    run = Run(image, words(dockerfile.last(image, "CMD") or ""), environment | ENOUGH[image])
    assert problems(run, tmp_path) == []
    assert {name for name in environment if name.startswith("TAXIMETER_")} <= known_variables(image)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_asks_for_its_health_where_it_listens(image: str, dockerfile: Dockerfile) -> None:
    check = words(dockerfile.last(image, "HEALTHCHECK") or "")
    assert check[:2] == ["python", "/opt/healthcheck.py"]
    assert check[2] == dockerfile.last(image, "EXPOSE")
    assert check[3] == "/livez"


def test_no_secret_is_built_into_an_image(dockerfile: Dockerfile) -> None:
    for stage in dockerfile.stages.values():
        for instruction in ("ENV", "ARG"):
            assert not [
                text for text in stage.all(instruction) if re.search("(?i)password|secret|token|api_?key", text)
            ]


# -- the program that HEALTHCHECK runs ----------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers 200 to /livez and 404 to anything else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object, **__: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _check(port: int, path: str) -> int:
    command = [sys.executable, str(DEPLOY / "docker" / "healthcheck.py"), str(port), path]
    environment = {"http_proxy": "http://nobody.invalid:1"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode


def test_the_health_check_tells_good_from_bad_and_asks_no_proxy(port: int) -> None:
    assert _check(port, "/livez") == 0
    assert _check(port, "/readyz") == 1


def test_the_health_check_fails_where_nobody_listens() -> None:
    assert _check(1, "/livez") == 1
