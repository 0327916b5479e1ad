"""Values between the code under test and its judge: plain data only, one JSON line each.

What is not plain data arrives as its type's name. Nothing that is read can run anything.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:  # ``typing`` itself takes longer to import than the rest together
    from typing import Any

DEEPEST = 100
"""Levels of nesting."""
LONGEST = 64 * 2**20
"""Bytes of a line."""

_SCALARS: tuple[Any, ...] = (int, float, str)
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset)


class NotPlain(Exception):
    """A value that is not plain data."""


def dump(value: object) -> bytes:
    """One line. Raises NotPlain for what cannot be sent."""
    try:
        line = json.dumps(_encode(value, 0)).encode() + b"\n"
    except (ValueError, RecursionError) as error:
        raise NotPlain(str(error)) from None
    if len(line) > LONGEST:
        raise NotPlain(f"{len(line)} bytes")
    return line


def load(line: bytes) -> Any:
    """The value of a line. Raises NotPlain for what ``dump`` does not write."""
    try:
        return _decode(json.loads(line), 0)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotPlain(f"{type(error).__name__}: {error}") from None


def _encode(value: object, depth: int) -> Any:
    if depth > DEEPEST:
        raise NotPlain("nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (enumerations, counters, named tuples) arrive as what they are built on.
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
    if depth > DEEPEST:
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
