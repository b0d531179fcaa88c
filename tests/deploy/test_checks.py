"""The checks of this folder find what they look for: each is shown a planted mistake."""

from pathlib import Path

import pytest

from tests.deploy.commands import Run, problems
from tests.deploy.dockerfile import Dockerfile, is_ignored

DATABASE = {"TAXIMETER_DATABASE_URL_FILE": "/secrets/database-url"}
BOTH = {**DATABASE, "TAXIMETER_REDIS_URL_FILE": "/secrets/redis-url"}
JOURNAL = {"TAXIMETER_JOURNAL_DIR": "/journal", "TAXIMETER_REDIS_URL": "redis://redis"}


@pytest.mark.parametrize(
    "run",
    [
        Run("flusher", ["flusher"], BOTH),
        Run("flusher", ["flusher", "--flush-interval-s", "1"], BOTH),
        Run("flusher", ["migrate", "--shards", "4", "--json"], DATABASE),
        Run("flusher", ["invoice", "--yes"], {**DATABASE, "STRIPE_API_KEY_FILE": "/secrets/key"}),
        Run("sidecar", ["sidecar"], JOURNAL),
    ],
)
def test_what_is_right_passes(run: Run, tmp_path: Path) -> None:
    assert problems(run, tmp_path) == []


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (Run("flusher", ["flussher"], BOTH), "unknown command flussher"),
        (Run("flusher", ["migrate", "--shard", "4"], DATABASE), "unrecognized arguments: --shard 4"),
        (Run("flusher", ["flusher"], {**BOTH, "TAXIMETER_FLUSH_INTERVAL": "1"}), "TAXIMETER_FLUSH_INTERVAL"),
        (Run("flusher", ["flusher"], {**BOTH, "TAXIMETER_FLUSH_INTERVAL_S": "soon"}), "expected seconds"),
        (Run("flusher", ["flusher"], DATABASE), "--redis-url or TAXIMETER_REDIS_URL"),
        (Run("flusher", ["flush"], DATABASE), "no redis is named"),
        (Run("flusher", ["invoice"], {**DATABASE, "TAXIMETER_FINALIZATION_WINDOW_S": "1h"}), "whole seconds"),
        (Run("flusher", ["invoice", "--live"], {**DATABASE, "STRIPE_API_KEY_FILE": "/key"}), "--live"),
        (Run("flusher", ["sidecar"], JOURNAL), "the image flusher can't run sidecar"),
        (Run("sidecar", ["flush"], BOTH), "the image sidecar can't run flush"),
        (Run("sidecar", ["sidecar"], {**JOURNAL, **DATABASE}), "unknown variable TAXIMETER_DATABASE_URL_FILE"),
        (Run("sidecar", ["sidecar"], {**JOURNAL, "TAXIMETER_HTTP": "0.0.0.0:8130"}), "name a --token-file"),
        (Run("sidecar", ["sidecar"], {**JOURNAL, "TAXIMETER_JOURNAL_BYTES_MAX": "1Gi"}), "KiB, MiB or GiB"),
    ],
)
def test_a_planted_mistake_is_found(run: Run, found: str, tmp_path: Path) -> None:
    assert found in " ".join(problems(run, tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "RUNN true",
        "FROM python",
        "RUN true\nFROM python AS one",
        "FROM python AS one\nCOPY",
    ],
)
def test_a_dockerfile_that_docker_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|before the first|not an instruction"):
        Dockerfile(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM python AS one", "neither an earlier stage nor an ARG"),
        ("ARG A=python\nFROM ${A} AS one\nCOPY --from=two /x /x", "no earlier stage two"),
        ("ARG A=python\nFROM ${A} AS one\nCMD flusher", "not in exec form"),
    ],
)
def test_a_stage_that_does_not_fit_is_found(text: str, found: str) -> None:
    assert found in " ".join(Dockerfile(text).problems())


def test_the_rules_of_dockerignore_are_read_as_docker_reads_them() -> None:
    rules = ["*", "!sidecar", "!deploy/docker/healthcheck.py", "**/__pycache__", "**/*.pyc"]
    assert not is_ignored("sidecar/app.py", rules)
    assert not is_ignored("deploy/docker/healthcheck.py", rules)
    assert is_ignored("deploy/compose/secrets/database_url", rules)
    assert is_ignored("sidecar/__pycache__/app.pyc", rules)
    assert is_ignored("sidecar/contract/old.pyc", rules)
