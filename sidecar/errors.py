"""What the sidecar can't do now: the errors that answers are made of."""

from typing import Final

from sidecar.contract.codes import TaximeterError, TryAgainError

RETRY_AFTER_S: Final = 1


class Unavailable(TryAgainError):
    """The sidecar can't take or tell this now: an answer of 503 or 429 with Retry-After `retry_after_s`."""

    def __init__(self, code: str, message: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class JournalError(TaximeterError):
    """The journal can't be used: `journal_corrupt`, `journal_failed`, `journal_locked` or `ledger_mismatch`."""
