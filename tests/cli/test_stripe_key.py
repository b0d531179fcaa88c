"""The Stripe key is seen by the commands that need it, and by nothing that runs beside an app."""

import argparse
from pathlib import Path

import pytest

from flusher.cli import invoice
from tests.cli.running import POISON, Up
from tests.deploy.commands import known_variables


def test_the_sidecar_never_sees_the_key_and_no_process_has_it_in_its_arguments(server_dir: Path) -> None:
    # Given a system that is started where a key is set
    up = Up(server_dir / "data")
    try:
        for name, pid in up.endpoints["pids"].items():
            process = Path(f"/proc/{pid}")
            assert POISON["STRIPE_API_KEY"].encode() not in (process / "cmdline").read_bytes(), name
        seen = (Path(f"/proc/{up.endpoints['pids']['sidecar']}") / "environ").read_bytes()
    finally:
        up.close()
    # Then its sidecar has nothing of Stripe's, and one that is deployed knows no such variable
    assert b"PATH=" in seen
    assert b"STRIPE" not in seen
    assert not [name for name in known_variables("sidecar") if "STRIPE" in name]


def test_no_option_takes_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    invoice.add_arguments(parser)
    assert "key" in parser.format_help()
    assert not [option for option in parser._option_string_actions if "key" in option]
