"""The compose files: every path in them exists, every command and variable too, and no password is in them."""

import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import serving
from sidecar.guard import read_tokens
from sidecar.ingest import STOP_S
from tests.deploy.commands import Run, problems
from tests.deploy.dockerfile import Dockerfile, words
from tests.deploy.files import COMPOSE, DOCKERFILE, ROOT

IMAGES = {"taximeter-sidecar": "sidecar", "taximeter-flusher": "flusher"}
FILES = ("compose.yaml", "stripe.yaml")


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return _read("compose.yaml")


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile(DOCKERFILE.read_text(encoding="utf-8"))


def _ours(compose: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns our services with their image's name, as the second file extends them."""
    found = {}
    for name, service in compose["services"].items():
        if service["image"] in IMAGES:
            found[name] = (IMAGES[service["image"]], service)
    return found


def _prepared(directory: Path) -> Path:
    """Returns a copy of the folder in which the secrets were made."""
    copy = directory / "compose"
    shutil.copytree(COMPOSE, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["bash", str(copy / "prepare.sh")], check=True, capture_output=True, timeout=30)
    return copy


def test_every_command_and_variable_exists_and_they_are_enough(
    compose: dict[str, Any], dockerfile: Dockerfile, tmp_path: Path
) -> None:
    services = _ours(compose)
    assert set(services) == {"migrate", "flusher", "sidecar", "taximeter"}
    for image, service in services.values():
        run = Run(image, service["command"], dockerfile.environment(image) | service["environment"])
        assert problems(run, tmp_path) == []
    stripe = _read("stripe.yaml")["services"]["taximeter"]["environment"]
    run = Run("flusher", ["invoice"], services["taximeter"][1]["environment"] | stripe)
    assert problems(run, tmp_path) == []


def test_every_image_of_ours_is_a_target_of_the_dockerfile(compose: dict[str, Any], dockerfile: Dockerfile) -> None:
    for image, service in _ours(compose).values():
        build = service["build"]
        assert build["target"] == image
        assert image in dockerfile.stages
        assert (COMPOSE / build["context"]).resolve() == ROOT
        assert (COMPOSE / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


def test_every_file_is_there_once_it_was_prepared(tmp_path: Path) -> None:
    copy = _prepared(tmp_path)
    for name in FILES:
        for secret, where in _read(name)["secrets"].items():
            # The key of Stripe is the one that nobody can make up.
            assert (copy / where["file"]).exists() == (secret != "stripe_api_key")


def test_every_secret_that_is_used_is_mounted(compose: dict[str, Any]) -> None:
    for name in FILES:
        loaded = _read(name)
        for service in loaded["services"].values():
            mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
            named = {value for key, value in service.get("environment", {}).items() if key.endswith("_FILE")}
            assert named == mounted
            assert {path.rpartition("/")[2] for path in mounted} <= loaded["secrets"].keys()


def test_the_secrets_are_fit_for_use_private_and_stay_when_they_are_made_again(tmp_path: Path) -> None:
    secrets = _prepared(tmp_path) / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert len(read_tokens(secrets / "sidecar_tokens")) == 1
    password = (secrets / "postgres_password").read_text(encoding="utf-8").strip()
    assert len(password) == 43
    assert f"taximeter:{password}@postgres" in (secrets / "database_url").read_text(encoding="utf-8")
    # Users in containers are others than the one who made them
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o444}
    again = subprocess.run(["bash", str(secrets.parent / "prepare.sh")], capture_output=True, check=True, timeout=30)
    assert again.stdout == b""
    assert (secrets / "postgres_password").read_text(encoding="utf-8").strip() == password


def test_secrets_are_never_committed() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "deploy/compose/secrets/database_url"], cwd=ROOT, check=False, timeout=60
    )
    assert ignored.returncode == 0


def test_services_can_do_no_more_than_they_need(compose: dict[str, Any], dockerfile: Dockerfile) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        user = service.get("user") or (dockerfile.last(IMAGES[service["image"]], "USER") or "0").partition(":")[0]
        assert int(user) > 0, name


def test_only_the_sidecar_is_reached_from_outside_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"sidecar": ["127.0.0.1:8130:8130"]}
    assert compose["networks"]["inside"] == {"internal": True}
    outside = {name for name, service in compose["services"].items() if "outside" in service["networks"]}
    assert outside == {"sidecar", "taximeter"}


def test_what_is_named_elsewhere_in_the_file_is_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert volumes <= compose["volumes"].keys()
        assert set(service["networks"]) <= compose["networks"].keys()
        assert service.get("depends_on", {}).keys() <= compose["services"].keys()
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in compose["services"][other]["healthcheck"]


def test_the_journal_and_both_servers_are_on_volumes(compose: dict[str, Any], dockerfile: Dockerfile) -> None:
    kept = words(dockerfile.last("sidecar", "VOLUME") or "")
    assert f"journal:{kept[0]}" in compose["services"]["sidecar"]["volumes"]
    assert "valkey:/data" in compose["services"]["valkey"]["volumes"]
    assert "postgres:/var/lib/postgresql" in compose["services"]["postgres"]["volumes"]


def test_valkey_keeps_what_it_is_given(compose: dict[str, Any]) -> None:
    command = compose["services"]["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_the_sidecar_has_time_to_stop(compose: dict[str, Any]) -> None:
    grace_s = int(compose["services"]["sidecar"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > serving.FINISH_S + 2 * serving._CLOSE_S + STOP_S
