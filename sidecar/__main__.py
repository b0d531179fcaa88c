"""`python -m sidecar`: one sidecar in the foreground."""

import argparse
import sys

from sidecar.app import add_arguments, run


def main() -> int:
    """Run a sidecar as the flags and the environment say and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sidecar",
        description="Takes usage events over HTTP and a Unix socket, and counts each exactly once.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
