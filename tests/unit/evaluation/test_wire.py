"""Plain data arrives as it was sent; everything else does not arrive, and breaks nothing."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, namedtuple
from contextlib import suppress
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_evaluation.sandbox.inside.wire import NotPlain, dump, load

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    HASHABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3) | st.tuples(inner),
    max_leaves=10,
)


def kinds(value: Any) -> Any:
    """Values with their types, which == alone does not tell apart."""
    if isinstance(value, list | tuple):
        return type(value), [kinds(each) for each in value]
    if isinstance(value, dict):
        return dict, [(kinds(key), kinds(each)) for key, each in value.items()]
    return type(value), value


@given(VALUES)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    line = dump(value)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert kinds(load(line)) == kinds(value)


class Colour(IntEnum):
    RED = 3


class Always(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 3),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (Point(1, 2), (1, 2)),
        (bytearray(b"x"), bytearray(b"x")),
        (math.inf, math.inf),
    ],
)
def test_a_kind_of_plain_value_arrives_as_the_plain_one(value: object, plain: object) -> None:
    arrived = load(dump(value))
    assert arrived == plain and type(arrived) is type(plain)


def test_a_number_that_equals_everything_arrives_as_a_number() -> None:
    assert load(dump(Always(1))) != 2


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), len, iter([]), range(3), deep(200), deep(100_000), {"a": [object()]}])
def test_what_is_not_plain_is_not_sent(value: object) -> None:
    with pytest.raises(NotPlain):
        dump(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_not_plain(line: bytes) -> None:
    with suppress(NotPlain):
        load(line)


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{}",
        b'{"list": 3}',
        b'{"set": [{"list": []}]}',
        b'{"__import__": ["os"]}',
        b'{"list": [], "tuple": []}',
        b'{"dict": [[1]]}',
        b'{"bytes": "zz"}',
        b"[" * 100_000,
        b'{"list": [' * 500 + b"]}" * 500,
    ],
)
def test_what_nobody_sends_is_refused(line: bytes) -> None:
    with pytest.raises(NotPlain):
        load(line)
