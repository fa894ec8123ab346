"""Frozen dataclasses to JSON and back, checked: behind bundles, ONNX metadata and checkpoint headers.

What is read comes from files of others, so every field is checked for presence and type, and an error names the field
by its path (``decode.top_k``). Unknown fields are refused as well: within one schema version there are none.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

Record = TypeVar("Record")


class RecordError(ValueError):
    """A field that is missing, unknown or of the wrong type. The message starts with the path of the field."""


def to_json(record: object) -> Any:  # noqa: ANN401 - JSON is any of six types
    """Return dataclasses as dicts and tuples as lists, all the way down; other values as they are."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, (tuple, list)):
        return [to_json(item) for item in record]
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    return record


def from_json(kind: type[Record], data: object, path: str = "") -> Record:
    """Build the dataclass ``kind`` from parsed JSON.

    Args:
        kind: A dataclass; its fields are int, float, str, bool, ``Literal``, ``tuple``, ``dict[str, T]``,
            ``T | None`` and dataclasses.
        data: The parsed JSON object.
        path: Where ``data`` stands in its document, for messages.

    Raises:
        RecordError: A field is missing, unknown or of the wrong type.
    """
    if not isinstance(data, dict):
        raise RecordError(f"{path or 'the document'}: expected an object, got {_describe(data)}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # any dataclass
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise RecordError(f"{_join(path, unknown[0])}: unknown field")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f"{_join(path, name)}: missing")
    return kind(**values)


def _convert(hint: Any, value: Any, path: str) -> Any:  # noqa: ANN401, PLR0911 - one return a kind of type
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type[Any]", hint), value, path)
    if origin is typing.Literal:
        return _checked(value in arguments and isinstance(value, str), value, path, f"one of {', '.join(arguments)}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (item for item in arguments if item is not type(None))
        return _convert(inner, value, path)
    if origin is dict:
        _checked(isinstance(value, dict), value, path, "an object")
        return {key: _convert(arguments[1], item, _join(path, key)) for key, item in value.items()}
    if origin is tuple:
        _checked(isinstance(value, list), value, path, "a list")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        _checked(len(value) == len(arguments), value, path, f"{len(arguments)} items")
        return tuple(
            _convert(inner, item, f"{path}[{position}]")
            for position, (inner, item) in enumerate(zip(arguments, value, strict=True))
        )
    if hint is float:
        return float(_checked(_is_finite(value), value, path, "a finite number"))
    same = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    return _checked(same, value, path, hint.__name__)


def _checked(valid: bool, value: Any, path: str, expected: str) -> Any:  # noqa: ANN401
    if not valid:
        raise RecordError(f"{path}: expected {expected}, got {_describe(value)}")
    return value


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of JSON can be larger than any float
        return False


def _describe(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
