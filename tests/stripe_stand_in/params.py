"""Form bodies and query strings as Stripe reads them, checked against the typed params of the `stripe` package.

A name that the package does not know is refused as Stripe refuses it, so a misspelt parameter can't pass here and
fail there. The package is the only source: nothing is listed by hand.
"""

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from stripe._request_options import RequestOptions
from typing_extensions import is_typeddict as is_extended_typeddict

from tests.stripe_stand_in.errors import ApiError

_KEY = re.compile(r"[^\[\]]+|\[\]")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_TEXT_MAX = 5000
_METADATA_MAX = 50
_METADATA_KEY_MAX = 40
_METADATA_VALUE_MAX = 500

# Names that the request options use and that the modules of the params do not import.
_NAMES_OF_OPTIONS = {"StripeContext": object, "Mapping": Mapping}

Params = dict[str, Any]


def decode_form(pairs: Iterable[tuple[str, str]]) -> Params:
    """Return `a[b][0]=c` pairs as nested dicts; lists stay dicts keyed by position until the type is known."""
    root: Params = {}
    for key, value in pairs:
        *parents, last = _KEY.findall(key)
        place = root
        for part in parents:
            place = place.setdefault(part, {})
        place[str(len(place)) if last == "[]" else last] = value
    return root


def decode_json(text: str) -> Params:
    """Return a body of API v2 in the form of `decode_form`; raise ApiError for what is no JSON object."""
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise ApiError(400, "Invalid JSON in the request body.", code="invalid_json") from error
    params: Params = _by_place(body if isinstance(body, dict) else {"": body})
    return params


def _by_place(value: Any) -> Any:
    if isinstance(value, list):
        return {str(place): _by_place(item) for place, item in enumerate(value)}
    return {name: _by_place(item) for name, item in value.items()} if isinstance(value, dict) else value


@cache
def fields_of(typed_params: type) -> dict[str, Any]:
    """Return name -> type of the parameters that a TypedDict of `stripe.params` lists, without request options."""
    hints = get_type_hints(typed_params, localns=_NAMES_OF_OPTIONS)
    return {name: kind for name, kind in hints.items() if name not in RequestOptions.__annotations__}


def check(params: Params, typed_params: type, path: str = "") -> Params:
    """Return the parameters with their types, or raise ApiError 400 as Stripe does."""
    fields = fields_of(typed_params)
    checked: Params = {}
    for name, value in params.items():
        where = f"{path}[{name}]" if path else name
        if name not in fields:
            raise ApiError(400, f"Received unknown parameter: {where}", code="parameter_unknown", param=where)
        checked[name] = _coerce(value, fields[name], where)
    return checked


def _is_params(kind: object) -> bool:
    return is_typeddict(kind) or is_extended_typeddict(kind)


def _coerce(value: object, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _coerce_union(value, get_args(kind), where)
    if origin is Literal:
        return _require(value in get_args(kind), value, where, f"one of {get_args(kind)}")
    if origin is list:
        _require(isinstance(value, dict) and all(key.isdigit() for key in value), value, where, "an array")
        items = value.items() if isinstance(value, dict) else ()
        (of,) = get_args(kind)
        return [_coerce(item, of, f"{where}[{key}]") for key, item in items]
    if origin is dict:
        _require(isinstance(value, dict), value, where, "a hash")
        if where.rstrip("]").endswith("metadata") and isinstance(value, dict):
            _check_metadata(value, where)
        return value
    if _is_params(kind):
        _require(isinstance(value, dict), value, where, "a hash")
        return check(value, kind, where) if isinstance(value, dict) else None
    return _coerce_scalar(value, kind, where)


def _check_metadata(metadata: Params, where: str) -> None:
    """Raise ApiError beyond Stripe's limits (https://docs.stripe.com/api/metadata)."""
    _require(len(metadata) <= _METADATA_MAX, metadata, where, f"metadata of at most {_METADATA_MAX} keys")
    for key, value in metadata.items():
        fits = isinstance(value, str) and len(value) <= _METADATA_VALUE_MAX and len(key) <= _METADATA_KEY_MAX
        expected = f"metadata keys of {_METADATA_KEY_MAX} and values of {_METADATA_VALUE_MAX} characters at most"
        _require(fits, value, f"{where}[{key}]", expected)


def _coerce_union(value: object, kinds: tuple[Any, ...], where: str) -> Any:
    refused: ApiError | None = None
    structured = isinstance(value, dict)
    for kind in kinds:
        if kind is NoneType or structured != (_is_params(kind) or get_origin(kind) in (list, dict)):
            continue
        try:
            return _coerce(value, kind, where)
        except ApiError as error:
            refused = error
    raise refused or _invalid(value, where, "another type")


def _coerce_scalar(value: object, kind: type, where: str) -> Any:
    if not isinstance(value, str):
        raise _invalid(value, where, f"a value of type {kind.__name__}")
    if kind is bool:
        _require(value in ("true", "false"), value, where, "true or false")
        return value == "true"
    if kind is int:
        _require(_INTEGER.fullmatch(value) is not None, value, where, "an integer")
        return int(value)
    if kind is Decimal:
        try:
            return Decimal(value)
        except InvalidOperation as error:
            raise _invalid(value, where, "a decimal") from error
    return _require(len(value) <= _TEXT_MAX, value, where, f"at most {_TEXT_MAX} characters")


def _require(condition: bool, value: object, where: str, expected: str) -> object:
    if not condition:
        raise _invalid(value, where, expected)
    return value


def _invalid(value: object, where: str, expected: str) -> ApiError:
    return ApiError(400, f"Invalid {where}: expected {expected}, got {value!r}", param=where)
