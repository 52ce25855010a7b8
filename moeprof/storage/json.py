"""Frozen dataclasses to and from JSON, strictly: a wrong field is named by its path.

Supported field types: str, int, float, bool, None, Any, dict[str, T], tuple[T, ...], list[T], nested dataclasses,
``Literal`` and unions of these. Unknown keys are ignored (a newer moeprof may have written them); a missing key takes
the dataclass's default, and is an error where there is none. A trailing underscore (``try_``) is left out of the key.

msgspec was weighed and not taken (0.22, Python 3.11). It would replace 65 lines of ``decode`` by 12, and its schemas
``storage.schema`` (95 lines). But it does not name the key of a table (``$.table[...]``) nor print the value that it found,
renames no field of a dataclass, publishes fields with a default as optional although they are always written, encodes NaN
as null, and refuses numbers of numpy. So ``encode`` and a walk over its schemas would stay. Its import costs the profiled
process 7 to 16 ms and 0.4 MB; this module costs 1 ms after the standard library.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any, TypeVar

from moeprof.errors import CaptureError

T = TypeVar("T")
SURROGATE = re.compile(r"\\u[dD]")


def encode(value: Any) -> Any:
    """A dataclass (nested at will) as plain JSON values; tuples become lists, field order is kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def dumps(value: Any) -> str:
    """JSON text of a dataclass, stable from run to run; NaN and infinity are refused (absent is null)."""
    return json.dumps(encode(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def loads(text: str | bytes) -> Any:
    """The JSON values of a text; half a surrogate pair is read as U+FFFD, so that every string can be written again.

    Raises:
        CaptureError: the text is no JSON, or nests deeper than Python can read.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        return _whole_characters(json.loads(text)) if SURROGATE.search(text) else json.loads(text)
    except RecursionError:
        raise CaptureError("not valid JSON: it nests too deep") from None
    except ValueError as error:
        raise CaptureError(f"not valid JSON: {error}") from error


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(k): _whole_characters(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole_characters(v) for v in value]
    return value


def decode(cls: type[T], data: Any, path: str = "$") -> T:
    """Build ``cls`` from JSON values.

    Raises:
        CaptureError: names the path of the first field that is missing or has the wrong type.
    """
    if not isinstance(data, dict):
        raise _mismatch(path, f"an object for {cls.__name__}", data)
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        key = field.name.rstrip("_")
        if key in data:
            values[field.name] = _value(hints[field.name], data[key], f"{path}.{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise CaptureError(f"{path}.{key} is missing")
    return cls(**values)


def _value(hint: Any, data: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _union(args, data, path)
    if origin is typing.Literal:
        if data not in args:
            raise _mismatch(path, f"one of {', '.join(map(str, args))}", data)
        return data
    if origin in (tuple, list):
        return _sequence(origin, args[0], data, path)
    if origin is dict:
        return _mapping(args[1], data, path)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), data, path)
    return _scalar(hint, data, path)


def _union(options: tuple[Any, ...], data: Any, path: str) -> Any:
    if data is None and type(None) in options:
        return None
    real = [o for o in options if o is not type(None)]
    for option in real[:-1]:
        try:
            return _value(option, data, path)
        except CaptureError:
            continue
    return _value(real[-1], data, path)


def _sequence(origin: type, item: Any, data: Any, path: str) -> Any:
    if not isinstance(data, list):
        raise _mismatch(path, "a list", data)
    return origin(_value(item, v, f"{path}[{i}]") for i, v in enumerate(data))


def _mapping(item: Any, data: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _mismatch(path, "an object", data)
    return {k: _value(item, v, f"{path}.{k}") for k, v in data.items()}


def _scalar(hint: Any, data: Any, path: str) -> Any:
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            raise _mismatch(path, "a number that a float can represent", data) from None
    if not isinstance(data, hint) or (hint is int and isinstance(data, bool)):
        raise _mismatch(path, getattr(hint, "__name__", str(hint)), data)
    return data


def _mismatch(path: str, expected: str, value: Any) -> CaptureError:
    return CaptureError(f"{path}: expected {expected}, found {type(value).__name__} {str(value)[:60]!r}")
