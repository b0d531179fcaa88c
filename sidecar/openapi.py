"""The OpenAPI document of the HTTP interface."""


def document() -> dict[str, object]:
    """Return it."""
    return {}
