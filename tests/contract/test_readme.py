"""The contract's README is the schema of Redis: what the code has, it names."""

import inspect
import re
from importlib.resources import files
from typing import get_args

import msgspec
import pytest

from sidecar.contract import codec, identity, keys, scripts
from sidecar.contract.asking import Asking, Missing
from sidecar.contract.event import Content, Identity
from sidecar.contract.meters import Meter
from sidecar.contract.proof import Answer, Question, ShardAnswer
from sidecar.contract.usage import UsageAnswer, UsageFound, UsageQuestion
from sidecar.manifest import Chain, Manifest
from tests.contract.forms import names_json
from tests.meta.sources import ROOT

README = (ROOT / "sidecar" / "contract" / "README.md").read_text(encoding="utf-8")
LUA = {path.name.removesuffix(".lua"): path.read_text() for path in files("sidecar.contract").joinpath("lua").iterdir()}
# They make no key: parts of names, readers of names, and arithmetic on days.
NO_KEYS = {
    "shard_tag", "decode_counter_field", "decode_total_field", "user_of_totals", "day_of", "days", "live_from_day",
    "live_since",
}  # fmt: skip


def code(text: str) -> set[str]:
    """Returns the words that stand in backticks, whole or after a dot."""
    return set(re.findall(r"`([\w.:<>{}]+)`", text))


def test_every_key_builder_is_named() -> None:
    builders = {
        name
        for name, function in inspect.getmembers(keys, inspect.isfunction)
        if function.__module__ == keys.__name__ and not name.startswith("_")
    }
    assert builders >= NO_KEYS
    assert builders - NO_KEYS - code(README) == set()


def test_every_key_is_named_as_it_is_built() -> None:
    found = names_json().decode()
    for constant in ("LEDGER", "METERS", "USERS", "ASKING", "USAGE_QUESTIONS", "PROOF_QUESTION"):
        assert f"| `{getattr(keys, constant)}` | `{constant}` |" in README
        assert f'"{constant}"' in found
    shard, generation = "<shard>", "<gen>"
    assert f"`{keys.proof_answers('<question>')}`" in README
    assert f"`{keys.usage_answer('<question>')}`" in README
    for name in (
        "{t1:<shard>}",
        f"{{t1:{shard}}}{generation}:state",
        *(f"{{t1:{shard}}}{generation}:{part}" for part in ("stream", "counters", "index")),
        f"{{t1:{shard}}}{generation}:<token>:stream",
        f"{{t1:{shard}}}{generation}:totals:<day>:<user>",
    ):
        assert f"`{name}`" in README
    opened, sealed = keys.open_epoch(3, "<gen>"), keys.sealed_epoch(3, "<gen>", "<token>")
    for built in (*opened, sealed.stream, keys.state(3), keys.staged_state(3, "<gen>")):
        assert f"`{built.replace('{t1:3}', '{t1:<shard>}')}`" in README


@pytest.mark.parametrize("name", sorted(LUA))
def test_every_script_is_named_with_its_answers(name: str) -> None:
    (_, _, table) = README.partition("| script |")
    (row,) = re.findall(rf"^\| `{name}` \|.*$", table.partition("\n\n")[0], re.MULTILINE)
    answers = set(re.findall(r"return \{'(\w+)'", LUA[name]))
    assert answers
    told = code(row if "The same answers" not in row else table) | {
        "ok",
        "published",
        "fenced",
        "registered",
        "generation",
        "changed",
    }
    assert answers - told == set()
    assert row.count("|") == 5


def test_there_is_a_builder_for_every_script() -> None:
    assert set(get_args(scripts.ScriptName)) == set(LUA)
    for name in LUA:
        assert callable(getattr(scripts, name))


def test_every_field_of_the_state_is_named() -> None:
    used = {
        field
        for text in LUA.values()
        for call in re.findall(r"redis\.call\('H(?:M?GET|SET|SETNX|DEL)', KEYS\[1\], ([^\n]*)\)", text)
        for field in re.findall(r"'([a-z]+:?)'", call)
    }
    assert {"ledger", "generation", "fence", "token", "p:", "c:"} <= used
    (_, _, table) = README.partition("### The state of a shard")
    cells = re.findall(r"^\| ([^|]+) \|", table.partition("###")[0], re.MULTILINE)
    named = {word.removesuffix("<producer>") for cell in cells for word in code(cell)}
    assert used - named == set()


@pytest.mark.parametrize(
    "kind",
    [
        *(codec.Batch, codec.Claim, Content, Meter, Question, Answer, ShardAnswer, Manifest, Chain, Asking, Missing),
        *(UsageQuestion, UsageFound, UsageAnswer),
    ],
)
def test_every_field_of_every_form_is_named(kind: type[msgspec.Struct]) -> None:
    assert {field for field in kind.__struct_fields__ if not re.search(rf"\b{field}\b", README)} == set()


@pytest.mark.parametrize("kind", [codec.Batch, codec.Claim, Content])
def test_elements_of_the_record_stand_in_their_order(kind: type[msgspec.Struct]) -> None:
    (_, _, table) = README.partition(f"| # | {kind.__name__} |")
    rows = re.findall(r"^\| ([\d, ]+) \| (`[^|]*`) \|", table.partition("\n\n")[0], re.MULTILINE)
    named = [word for _, cell in rows for word in re.findall(r"`(\w+)`", cell)]
    numbers = [int(number) for cell, _ in rows for number in cell.split(",")]
    assert named == list(kind.__struct_fields__)
    assert numbers == list(range(len(named)))


def test_every_identity_and_every_hash_is_named() -> None:
    for one in Identity:
        assert f"{one.value} `{one.name}`" in README
    persons = set(re.findall(r'person=b"(\w+)"', inspect.getsource(identity)))
    assert len(persons) == 8
    assert all(f"\n| `{person}` |" in README for person in persons)


def test_the_versions_are_those_in_force() -> None:
    assert (keys.CONTRACT_VERSION, keys.PREFIX, codec.CODEC_VERSION) == (1, "t1", 2)
    assert "`CONTRACT_VERSION`" in README
    assert "`CODEC_VERSION`" in README


def test_every_module_is_introduced() -> None:
    modules = {path.name for path in (ROOT / "sidecar" / "contract").glob("*.py")} - {"__init__.py"}
    (listing,) = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    assert modules - set(re.findall(r"\w+\.py", listing)) == set()


@pytest.mark.parametrize("name", sorted(LUA))
def test_every_script_says_what_it_takes_and_answers_and_is_small(name: str) -> None:
    first, *rest = LUA[name].splitlines()
    header = [line for line in rest if line.startswith("--")]
    assert first.startswith("#!lua")
    assert header[0].startswith(f"-- {name}: ")
    first_key = "1 ..." if name == "stage" else "1 state"  # stage alone writes what is not open yet
    assert any(line.startswith(f"-- KEYS  {first_key}") for line in header)
    assert any(line.startswith("-- ARGV  1 ") for line in header)
    assert any(line.startswith("-- Returns {") for line in header)
    assert max(map(len, rest)) <= 120
    assert sum(bool(line.strip()) and not line.startswith("--") for line in rest) <= 100


@pytest.mark.parametrize("name", sorted(LUA))
def test_only_ingest_is_denied_when_there_is_no_memory(name: str) -> None:
    assert ("allow-oom" in LUA[name].splitlines()[0]) == (not name.startswith("ingest"))
