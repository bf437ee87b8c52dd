"""JSON, strictly: text that every reader understands alike, and parsed JSON as frozen dataclasses. No coercion.

The wrong shape is an error that names its place.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Hashable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Object = TypeVar("Object")
BEYOND = 1e308  # NaN and infinities are not below it, nor whole numbers that no float holds


def parsed(text: str) -> object:
    """The value of a JSON text; ValueError for numbers that JSON does not have and for keys that stand twice."""
    return json.loads(text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_no_duplicates)


def read_object(of: type[Object], data: object, where: str, **names: Hashable) -> Object:
    """A dataclass from an object that has its fields and no others; ValueError if anything is amiss.

    Fields with a default may be missing. Knows strings, numbers, null, Literal, tuple[X, ...], dict and
    dataclasses within dataclasses, by their own `from_json` if they have one; whole numbers pass for floats,
    NaN and infinities for nothing. `names` are types that its annotations mention and its module does not import
    when it runs.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {shown(data)}, not an object")  # noqa: TRY004 - the data is wrong
    expected = _fields(of, **names)  # type: ignore[arg-type]  # classes are hashable
    if unknown := sorted(set(data) - set(expected)):
        raise ValueError(f"{where} has an unknown key {unknown[0]!r}")
    values = {key: _read(expected[key], value, f"{where}.{key}") for key, value in data.items()}
    try:
        return of(**values)
    except TypeError as error:  # a field is missing
        raise ValueError(f"{where}: {error}") from error


def shown(value: object) -> str:
    """A value in a message, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


@functools.cache
def _fields(of: Hashable, **names: Hashable) -> dict[str, Any]:
    return get_type_hints(of, localns=dict(names) or None)


def _read(expected: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - any type, any parsed value
    """A parsed value as the type that a field declares."""
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):  # of the kind X | None
        return None if value is None else _read(arguments[0], value, where)
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        own = getattr(expected, "from_json", None)
        return own(value) if own else read_object(expected, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        of_key, of_item = arguments
        return {
            _read(of_key, key, where): _read(of_item, item, f"{where}.{key}") for key, item in value.items()
        }
    if _is_plain(expected, value):
        return float(value) if expected is float else value
    raise ValueError(f"{where} is {shown(value)}, not {getattr(expected, '__name__', expected)}")


def _is_plain(expected: object, value: object) -> bool:
    """Anything for Any, one of a Literal's, a finite number for float; true and false are no numbers."""
    if get_origin(expected) is Literal:
        return isinstance(value, Hashable) and value in get_args(expected)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < BEYOND
    return expected is Any or type(value) is expected


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:50]!r} stands twice in one object")
    return values
