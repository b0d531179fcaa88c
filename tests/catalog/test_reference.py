"""The page for users says what the reader reads, and its example can be applied."""

import re
from pathlib import Path

import pytest

from flusher.catalog.meter_reader import METER_KEYS
from flusher.catalog.parse import CUSTOMER_KEYS, SUBSCRIPTION_KEYS, parse
from flusher.catalog.plan_reader import PLAN_KEYS
from flusher.catalog.price_reader import MODEL_KEYS

PAGE = (Path(__file__).parents[2] / "flusher" / "catalog" / "REFERENCE.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_is_a_catalog() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = parse(example).catalog
    assert (set(found.plans), set(found.customers), set(found.subscriptions)) == (
        {"pro", "regional"},
        {"acme"},
        {"acme/pro"},
    )


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("Meters", METER_KEYS),
        ("Plans", PLAN_KEYS),
        ("Prices, by `model`", [*MODEL_KEYS, *{key for keys in MODEL_KEYS.values() for key in keys} - {"model"}]),
        ("Customers and subscriptions", [*CUSTOMER_KEYS, *SUBSCRIPTION_KEYS]),
    ],
)
def test_the_page_names_every_key(heading: str, keys: list[str]) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    named = {word for code in re.findall(r"`([^`]*)`", section) for word in re.findall(r"\w+", code)}
    assert set(map(str, keys)) <= named
