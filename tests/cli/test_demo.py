"""`taximeter demo`: from an event to an invoice and its proof, and the same system again afterwards."""

import os
import re
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from flusher.cli import demo
from flusher.cli.main import main
from flusher.demo.traffic import CUSTOMER, END, START, make_traffic
from flusher.pricing.line import rfc3339
from flusher.proof import Check, Proof
from sidecar.contract.codes import TaximeterError
from tests.cli.running import POISON, Up
from tests.embedded.support import gone_within


def test_the_demo_ends_well_with_the_invoice_the_proof_and_the_way_on(server_dir: Path) -> None:
    # Given an environment that names systems which must not be touched
    data_dir = server_dir / "demo"
    began_at = time.monotonic()
    # When the demo runs
    done = subprocess.run(
        [sys.executable, "-m", "flusher", "demo", "--data-dir", str(data_dir)],
        env={**os.environ, **POISON, "TAXIMETER_TOKEN_FILE": "poison"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    # Then it ends by itself and well
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_at < 180
    # With what was sent, the invoice and the proof
    assert "112,190 events of 50 customers sent over HTTP: 100,545 different ones, 11,645 repeated" in done.stderr
    shown = re.sub(r" +", " ", done.stdout)
    for line in (
        "calls, first 1,000 units 1,000 0 0.00",
        "calls, next 9,000 units 9,000 0.01 90.00",
        "calls, 2,345 units above 10,000 2,345 0.005 11.73",
        "total 101.73 USD",
        "in PostgreSQL, to be billed 100,545",
        "difference 0 0",
        "The proof holds.",
    ):
        assert line in shown
    assert f"up --data-dir {data_dir}" in done.stdout
    assert "curl http://127.0.0.1:" in done.stdout
    # And nothing is left running, but the data, on which the system comes up again
    assert not (data_dir / "endpoints.json").exists()
    up = Up(data_dir)
    try:
        pids = up.children
        (invoice,) = up.command("invoices")["invoices"]
        assert (invoice["customer"], invoice["total"]) == (CUSTOMER, "101.73")
        (usage,) = up.command("usage", "--customer", CUSTOMER, "--from", "2025-07-01", "--to", "2025-08-01")["usage"]
        assert (usage["meter"], usage["units"], usage["events"]) == ("api_call", "12345", 12345)
    finally:
        up.close()
    assert gone_within(pids, deadline_s=60)


def test_the_traffic_is_that_of_50_customers_in_july_with_retries_and_duplicates() -> None:
    traffic = make_traffic()
    assert traffic.different >= 100_000
    assert len({customer for customer, _, _ in traffic.expected}) == 50
    assert traffic.expected[CUSTOMER, "api_call", ()] == (Decimal(12345), 12345)
    assert sum(events for _, events in traffic.expected.values()) == traffic.different
    # Whole batches are repeated, with a key and without; so are single events
    repeated = [place for place, batch in enumerate(traffic.batches) if batch in traffic.batches[:place]]
    assert {traffic.batches[place].key is None for place in repeated} == {True, False}
    first = [batch for place, batch in enumerate(traffic.batches) if place not in repeated and batch.key is None]
    single = [event for batch in first for event in batch.events]
    assert len(single) - len(set(single)) > 500
    times = sorted(re.findall(rb'"timestamp":"([^"]+)"', b"".join(traffic.batches[0].events)))
    assert rfc3339(START).encode() <= times[0] <= times[-1] < rfc3339(END).encode()
    assert traffic == make_traffic()


def test_a_proof_that_does_not_hold_is_no_success() -> None:
    traffic = make_traffic()
    proof = Proof(checks=[Check("usage", ok=False, detail="differs")])
    with pytest.raises(TaximeterError, match="the proof: expected that it holds"):
        demo.check_proof(proof, traffic)
    with pytest.raises(TaximeterError, match="expected 100545 events and 11645 duplicates, got 0 and 0"):
        demo.check_proof(Proof(), traffic)


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "--data-dir", str(tmp_path)]) == 2
    assert "--data-dir: expected a directory that is empty" in capsys.readouterr().err
