"""Kubernetes's own schemas, offline, in their strict form: a field that a version does not have is an error."""

from importlib import import_module
from typing import Any

from tests.deploy.files import Document

_library: Any = import_module("kubernetes_validate")  # it has no types

OLDEST = "1.33"
NEWEST = ".".join(str(_library.latest_version()).split(".")[:2])
WITHOUT_NATIVE_SIDECARS = "1.27"


class InvalidError(Exception):
    """An object is not what the schema asks."""


def validate(one: Document, version: str) -> None:
    """Raises InvalidError for an object that this version would not take."""
    try:
        used = _library.validate(one, version, strict=True)
    except _library.ValidationError as error:
        raise InvalidError(error.message) from error
    if used != version:
        raise InvalidError(f"there is no schema of {version}, only of {used}")
