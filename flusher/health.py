"""The flusher's health over HTTP, on a thread of its own: /livez, /readyz and /metrics, and nothing else."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from flusher.metrics import CONTENT_TYPE, Metrics
from flusher.serving import Answer, Handler, HttpServer, json_answer, problem
from sidecar.contract.codes import CODES, TaximeterError, TryAgainError
from sidecar.contract.settings import Address

READ_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 32


class Health(Metrics):
    """The metrics of a flusher, and whether it is ready.

    Ready means that the last cycle went well. Alive means that the process answers: a drain may take long, and to
    start it over would only make it longer, so a slow cycle is for an alarm on
    `taximeter_flusher_last_cycle_timestamp_seconds`, not for a restart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unready: TaximeterError | None = TryAgainError("starting", CODES["starting"])

    def cycle_ended(self, took_s: float) -> None:
        """Be ready."""
        super().cycle_ended(took_s)
        self.unready = None

    def failed(self, error: TaximeterError) -> None:
        """Be ready no longer, until a cycle goes well."""
        super().failed(error)
        self.unready = error


def answer(path: str, health: Health) -> Answer:
    """Return what to answer to GET `path`."""
    match path.partition("?")[0]:
        case "/livez":
            return json_answer(HTTPStatus.OK, {"status": "ok"})
        case "/readyz":
            unready = health.unready
            if unready is None:
                return json_answer(HTTPStatus.OK, {"status": "ok"})
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, unready.code, unready.message)
        case "/metrics":
            return Answer(HTTPStatus.OK, CONTENT_TYPE, health.exposition())
        case _:
            return problem(HTTPStatus.NOT_FOUND, "not_found", "expected /livez, /readyz or /metrics")


class HealthServer(HttpServer):
    """Serves a `Health` on `address` from its making on, until `close`.

    Raises TaximeterError `config_invalid` from its constructor when it can't listen there.
    """

    def __init__(self, address: Address, health: Health) -> None:
        handler = _handler(lambda path: answer(path, health))
        super().__init__(address, handler, flag="--health-http", name="health", most=CONNECTIONS_MAX)


def _handler(answer_to: Callable[[str], Answer]) -> type[Handler]:
    class Probe(Handler):
        timeout = READ_TIMEOUT_S

        def get(self) -> Answer:
            """Answer a probe."""
            return answer_to(self.path)

    return Probe
