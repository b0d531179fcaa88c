"""`taximeter sidecar`: one sidecar in the foreground, the same as `python -m sidecar`."""

import argparse

from sidecar import app


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for every setting of the sidecar."""
    app.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run until a signal asks to stop, then finish what was begun. Returns the exit status."""
    return app.run(args)
