"""A world per test: a migrated database with the article's plan."""

from collections.abc import Iterator

import pytest

from tests.invoicing.world import ARTICLE, World


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    found = World(database_url)
    found.apply(ARTICLE)
    yield found
    found.close()
