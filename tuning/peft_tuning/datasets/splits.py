"""Keeping the parts of a data set apart: what counts as the same question, and who gets it.

A split made here depends on the examples and the seed, not on the order of the file, the machine or the version of
Python: an example's place is the sha256 of seed and question.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from peft_tuning.examples import Example, FillExample, IntentExample

AnyExample = TypeVar("AnyExample", IntentExample, FillExample, Example)


def normalized(text: str) -> str:
    """``text`` with every run of whitespace as one space, and none at the ends."""
    return " ".join(text.split())


def question(example: Example) -> str:
    """What two examples must not share across parts: the sentence, or the whole file that has the hole."""
    if isinstance(example, IntentExample):
        return normalized(example.intent)
    return normalized(example.prefix + example.middle + example.suffix)


def unrepeated(examples: Iterable[AnyExample], dropped: Counter[str]) -> list[AnyExample]:
    """``examples`` without those that repeat an earlier one's question and answer; counted as ``duplicate``."""
    seen: set[tuple[str, ...]] = set()
    kept: list[AnyExample] = []
    for example in examples:
        content = _content(example)
        if content in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(content)
            kept.append(example)
    return kept


def ordered(examples: Iterable[AnyExample], seed: int) -> list[AnyExample]:
    """``examples`` in an order that only they and ``seed`` decide; those with the same question stand together."""
    return sorted(examples, key=lambda example: (_place(question(example), seed), _content(example)))


def take(examples: Sequence[AnyExample], count: int) -> tuple[list[AnyExample], list[AnyExample]]:
    """The first ``count`` examples and the rest; examples with one question are not torn apart.

    ``examples`` come from ``ordered``. The first part has more than ``count`` only where a question repeats.
    """
    end = max(count, 0)
    while 0 < end < len(examples) and question(examples[end]) == question(examples[end - 1]):
        end += 1
    return list(examples[:end]), list(examples[end:])


def hold_out(examples: Iterable[AnyExample], share: float, seed: int) -> tuple[list[AnyExample], list[AnyExample]]:
    """A share of the examples, at least one of two or more, and the rest; what asks one question only is the rest."""
    rows = ordered(examples, seed)
    held_out, rest = take(rows, max(1, round(len(rows) * share)) if len(rows) > 1 else 0)
    return (held_out, rest) if rest else ([], held_out)


def apart(
    examples: Iterable[AnyExample], others: Iterable[Example], dropped: Counter[str], reason: str
) -> list[AnyExample]:
    """``examples`` without those whose question is asked in ``others``; counted in ``dropped`` under ``reason``."""
    taken = {question(other) for other in others}
    kept: list[AnyExample] = []
    for example in examples:
        if question(example) in taken:
            dropped[reason] += 1
        else:
            kept.append(example)
    return kept


def _content(example: Example) -> tuple[str, ...]:
    if isinstance(example, IntentExample):
        return (normalized(example.intent), example.code)
    return (example.prefix, example.suffix, example.middle)


def _place(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()
