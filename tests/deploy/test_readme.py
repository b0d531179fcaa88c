"""What deploy/README.md says to do works, and what it says to watch exists."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flusher.metrics import Metrics
from sidecar import metrics
from tests.deploy.commands import Run, problems
from tests.deploy.files import DEPLOY, KUBERNETES, Document
from tests.deploy.pods import pods, run_of

Render = Callable[[Path], list[Document]]
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
FLUSHER_METRICS = {
    family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()
}


def _yaml_blocks() -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]


def test_the_overlays_that_it_shows_render_and_take_stripe_away(render: Render, tmp_path: Path) -> None:
    # given the overlay of step 1 with the patch of step 3
    overlay: dict[str, Any] = {}
    for block in _yaml_blocks():
        overlay |= block
    base = os.path.relpath((KUBERNETES / "base").resolve(), tmp_path.resolve())
    overlay["resources"] = [base]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    objects = render(tmp_path)
    # then the images are those of the registry, and nothing of Stripe is left
    owned = {pod.owner: pod for pod in pods(objects)}
    images = {container["image"] for pod in owned.values() for container in pod.containers}
    assert images == {"registry.example.com/taximeter-flusher:0.1.0"}
    invoice = owned["CronJob/taximeter-invoice"]
    assert "stripe" not in str(invoice.spec).lower()
    container = invoice.containers[0] | {"image": "taximeter-flusher"}
    assert problems(run_of(container, objects, {}), tmp_path) == []


def test_the_commands_that_it_shows_exist(tmp_path: Path) -> None:
    target = {"TAXIMETER_REDIS_URL": "redis://redis", "TAXIMETER_DATABASE_URL": "postgresql://postgres"}
    shown = [line.split()[1:] for line in README.splitlines() if re.match(r"taximeter [a-z]", line)]
    assert len(shown) >= 3
    assert [problem for words in shown for problem in problems(Run("flusher", words, target), tmp_path)] == []


def test_the_metrics_that_it_says_to_watch_exist() -> None:
    named = set(re.findall(r"`(taximeter_\w+)`", README))
    assert named
    assert named <= FLUSHER_METRICS | {described.name for described in metrics.descriptions()}
