"""`taximeter flusher`: one flusher process, for production; any number may run."""

import argparse
import os
from pathlib import Path

from flusher.config import add_flags, settings_from
from flusher.program import run as run_program
from sidecar.contract.logs import set_up
from sidecar.contract.settings import with_secrets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for every setting."""
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run until a signal asks to stop. Raises TaximeterError `config_invalid` for settings that can't be used."""
    settings = settings_from(vars(args), with_secrets(os.environ, Path.read_text))
    set_up(settings.log_level)
    run_program(settings)
    return 0
