"""Sentences with their functions."""

from __future__ import annotations

import pytest

from peft_core.code.structure import Span, parse_structure
from peft_tuning.data.repository.holes import intents, sentence_of

TEXT = '''\
class Order:
    @property
    async def total(self, rate):
        r"""Multiply the price with a rate. Not for gifts.

        More of it.
        """

        # gifts are free
        if rate:
            return self.price * rate
        return 0


def quiet():
    return 1


def short():
    """Short."""
    return 1
'''


def test_the_first_sentence_asks_for_the_function_without_its_docstring() -> None:
    (found,) = intents(parse_structure(TEXT, "python"), "a.py")
    assert found.id == f"a.py:{TEXT.index('async def')}:total"
    assert found.intent == "Multiply the price with a rate"
    assert found.code == (
        "async def total(self, rate):\n    # gifts are free\n    if rate:\n"
        "        return self.price * rate\n    return 0"
    )


def test_a_function_that_touches_a_span_to_avoid_is_left_out() -> None:
    start = TEXT.index("return 0")
    assert list(intents(parse_structure(TEXT, "python"), "a.py", [Span(start, start + 1)])) == []


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        (
            '"""Read an ISO date, e.g. 2024-01-01, from text.  Raises."""',
            "Read an ISO date, e.g. 2024-01-01, from text",
        ),
        ("'''Read all\n   the rows\n\n   :param x: rows'''", "Read all the rows"),
        ('u"Give the 1.5 quantile of x"', "Give the 1.5 quantile of x"),
        ('"""Too short."""', ""),
        ('"""1234 5678 9999"""', ""),
        ('""">>> add(one, two, three)"""', ""),
        ('"""' + "word " * 100 + '"""', ""),
        ("name", ""),
    ],
)
def test_a_sentence_says_enough_and_ends(docstring: str, sentence: str) -> None:
    assert sentence_of(docstring) == sentence
