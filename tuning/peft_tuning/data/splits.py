"""Keeping the parts of a data set apart: what counts as the same question, and who gets it.

A split made here depends on the examples and the seed, not on the order of the file, the machine or the version of
Python: an example's place is the sha256 of seed and question.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from peft_tuning.data.examples import Example, FillExample, IntentExample

AnyExample = TypeVar("AnyExample", IntentExample, FillExample, Example)


def normalized(text: str) -> str:
    """``text`` with every run of whitespace as one space, and none at the ends."""
    return " ".join(text.split())


def question(example: Example) -> str:
    """What two examples must not share across parts: the sentence, or the whole file that has the hole."""
    if isinstance(example, IntentExample):
        return normalized(example.intent)
    return normalized(example.prefix + example.middle + example.suffix)


def drop_duplicates(examples: Iterable[AnyExample], dropped: Counter[str]) -> list[AnyExample]:
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


def stable_order(examples: Iterable[AnyExample], seed: int) -> list[AnyExample]:
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
    rows = stable_order(examples, seed)
    held_out, rest = take(rows, max(1, round(len(rows) * share)) if len(rows) > 1 else 0)
    return (held_out, rest) if rest else ([], held_out)


def drop_overlap(
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


# Who may see what: whole files are held out, the newest first, so that the test asks for code the model has not met.
#
# Where there is history a file is as new as the last commit that touched it; files of one age (a first commit, a folder
# without history) are in an order drawn by seed. That no function is on both sides is the business of ``dataset``,
# which keeps one file of each near-duplicate pair and cuts no hole in a copy of a function.


class Split(StrEnum):
    """A part of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


MAX_SPLIT_OVERSHOOT = 1.5
"""A part may outgrow its share by so much; a file that would make it larger is left to training."""


def newest_first(paths: Sequence[str], times: Mapping[str, int], seed: int) -> list[str]:
    """Paths by the time they last changed (seconds; 0 where it is not known), those of one time drawn by ``seed``."""
    return sorted(paths, key=lambda path: (-times.get(path, 0), seeded_number(seed, path), path))


def split_files(weights: Mapping[str, int], *, validation: float, test: float) -> Mapping[str, Split]:
    """The part of each path, from paths in order of age (newest first) with the examples each has.

    ``validation`` and ``test`` are parts of all examples, above 0. With three files or more no part is empty.
    """
    parts = dict.fromkeys(weights, Split.TRAIN)
    total = sum(weights.values())
    for part, share, others in ((Split.TEST, test, 2), (Split.VALIDATION, validation, 1)):
        target, taken = share * total, 0
        free = [path for path in weights if parts[path] is Split.TRAIN]
        left = len(free) - others
        for path in free:
            if taken >= target or not left:
                break
            if taken + weights[path] <= target * MAX_SPLIT_OVERSHOOT:
                parts[path] = part
                taken += weights[path]
                left -= 1
        if not taken and len(free) > others:
            parts[min(free, key=lambda path: weights[path])] = part
    return parts


def seeded_number(seed: int, text: str) -> int:
    """A number that looks random, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest(), "big")
