"""Stripe's errors, as answers."""

from typing import Any


class ApiError(Exception):
    """An error answer: HTTP `status` and the members of Stripe's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        error = {"type": self.kind, "message": str(self)}
        if self.code is not None:
            error["code"] = self.code
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def missing(kind: str, object_id: str, param: str, status: int) -> ApiError:
    """Return the error for an object that does not exist: 404 in a path, 400 in a parameter."""
    return ApiError(status, f"No such {kind}: '{object_id}'", code="resource_missing", param=param)
