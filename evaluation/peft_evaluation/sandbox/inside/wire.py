"""The format of values between the code under test and its judge: plain data, one JSON line each.

Reading a line never runs code. A value that is not plain data cannot be sent.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:  # ``typing`` itself takes longer to import than the rest together
    from typing import Any

MAX_DEPTH = 100
"""Levels of nesting."""
MAX_LINE_BYTES = 64 * 2**20

_SCALARS: tuple[Any, ...] = (int, float, str)
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset)


class NotPlain(Exception):
    """A value that is not plain data."""


def dump(value: object) -> bytes:
    """Return a value as one line; raises NotPlain for a value that cannot be sent."""
    try:
        line = json.dumps(_encode(value, 0)).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise NotPlain(str(error)) from None
    if len(line) > MAX_LINE_BYTES:
        raise NotPlain(f"{len(line)} bytes")
    return line


def load(line: bytes) -> Any:
    """Return the value of a line; raises NotPlain for a line that ``dump`` did not write."""
    try:
        return _decode(json.loads(line), 0)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotPlain(f"{type(error).__name__}: {error}") from None


def _encode(value: object, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    # Values of subclasses (enumerations, counters, named tuples) arrive as their base types.
    for scalar in _SCALARS:
        if isinstance(value, scalar):
            return scalar.__new__(scalar, value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, depth + 1), _encode(item, depth + 1)] for key, item in dict.items(value)]}
    for builtin in _COLLECTIONS:
        if isinstance(value, builtin):
            return {builtin.__name__: [_encode(item, depth + 1) for item in builtin.__iter__(value)]}
    raise NotPlain(type(value).__name__)


def _decode(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise NotPlain("a bare list")
        return value
    ((kind, content),) = value.items()
    if kind == "complex":
        real, imaginary = content
        return complex(real, imaginary)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "bytearray":
        return bytearray.fromhex(content)
    if kind == "dict":
        return {_decode(key, depth + 1): _decode(item, depth + 1) for key, item in content}
    (builtin,) = (each for each in _COLLECTIONS if each.__name__ == kind)
    return builtin(_decode(item, depth + 1) for item in content)
