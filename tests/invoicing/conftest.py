"""A world per test: a migrated database with the article's plan."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flusher.cli.main import main
from flusher.invoicing.gateway import Gateway, StripeSettings
from tests.invoicing.world import ARTICLE, World
from tests.stripe_stand_in import StripeStandIn


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    found = World(database_url)
    found.apply(ARTICLE)
    yield found
    found.close()


@pytest.fixture
def taximeter(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs a command on the world's database, in an empty directory, and returns its exit status."""
    monkeypatch.setenv("DATABASE_URL", world.url)
    monkeypatch.chdir(tmp_path)

    def command(*argv: str) -> int:
        try:
            return main(argv)
        except SystemExit as wrong_use:
            return int(str(wrong_use.code))

    return command


@pytest.fixture
def stand_in() -> Iterator[StripeStandIn]:
    with StripeStandIn() as running:
        yield running


@pytest.fixture
def open_gateway(stand_in: StripeStandIn) -> Iterator[Callable[..., Gateway]]:
    """Returns a maker of gateways to the stand-in; without retries of their own unless asked for."""
    opened: list[Gateway] = []

    def make(api_key: str = "sk_test_x", *, retries: int = 0) -> Gateway:
        settings = StripeSettings(api_key, stand_in.base_url, rate=1_000, retries=retries, backoff_s=0)
        opened.append(Gateway(settings))
        return opened[-1]

    yield make
    for gateway in opened:
        gateway.close()
