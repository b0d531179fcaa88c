"""The storm of `make stripe-storm`, on little: each invoice once, right to the cent, the run killed twice."""

from contextlib import closing

from tests.invoicing.storm import Storm, check, prepare, run, start
from tests.invoicing.world import World
from tests.stripe_stand_in import StripeStandIn


def test_invoices_come_through_faults_a_rate_limit_and_two_kills_each_once(database_url: str) -> None:
    seen = run(Storm(invoices=60, limit=250, faults=0.05), database_url, lambda _text: None)

    assert seen["exits"][:2] == [-9, -9]
    assert seen["exits"][-1] == 0
    assert seen["faults"] >= 15


def test_two_commands_at_once_make_and_send_one_invoice_each(database_url: str) -> None:
    storm = Storm(invoices=20, limit=1_000, faults=0)
    with closing(World(database_url)) as world, StripeStandIn() as stand_in:
        prepare(storm, world, stand_in)

        commands = [start(storm, database_url, stand_in) for _ in range(2)]

        assert [command.wait(120) for command in commands] == [0, 0]
        check(world.connection, stand_in, storm.invoices)
