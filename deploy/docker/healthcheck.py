"""Asks a program on this machine for its health: exit status 0 when it answers 200. For HEALTHCHECK in the images.

`healthcheck.py PORT PATH`, for example `healthcheck.py 8130 /livez`. No proxy is asked, and nothing is printed but
the reason of a failure.
"""

import http.client
import sys

TIMEOUT_S = 3.0


def main(port: str, path: str) -> int:
    """Return the exit status for the program that listens on `port` of loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status == http.client.OK:
            return 0
        sys.stderr.write(f"{path}: {answer.status} {answer.read(1000).decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{path}: {error}\n")
    finally:
        connection.close()
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
