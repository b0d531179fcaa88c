"""The storm of `make stripe-storm`, on little: each invoice once, right to the cent, the run killed twice."""

from tests.invoicing.storm import Storm, run


def test_invoices_come_through_faults_a_rate_limit_and_two_kills_each_once(database_url: str) -> None:
    seen = run(Storm(invoices=120, limit=250, faults=0.05), database_url, lambda _text: None)

    assert seen["exits"][:2] == [-9, -9]
    assert seen["exits"][-1] == 0
    assert seen["faults"] >= 15
