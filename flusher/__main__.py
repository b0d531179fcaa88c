"""`python -m flusher` is the command `taximeter`."""

import sys

from flusher.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
