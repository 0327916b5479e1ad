"""Examples that a model is tuned on: sentences with their code, holes with what belongs there, and edits.

Also here: how the three parts of a data set are kept apart. A split depends on the examples and the seed alone, not on
the order of a file, the machine or the version of Python. ``datasets``, ``repository`` and ``edits`` make examples;
``encode`` turns them into tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import msgspec

from peft_core.api_types import ContextChunk
from peft_core.code.edits import Lines, join_lines
from peft_daemon.next_edit.moment import Moment
from peft_daemon.next_edit.places import Place

MAX_SPLIT_OVERSHOOT = 1.5
"""A held-out part may have this many times its share; a file that would exceed that is used for training."""


class HoleKind(StrEnum):
    """The kind of code that was cut out of a file."""

    TOKEN = "token"  # noqa: S105  (a kind of hole)
    CALL = "call"
    """A call, or arguments of one."""
    LINE = "line"
    BLOCK = "block"
    BODY = "body"
    """A whole function body."""


class Split(StrEnum):
    """A part of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, kw_only=True)
class IntentExample:
    """A sentence and the code it asks for."""

    id: str
    """Its origin, unique in its data set: ``conala/train/17``, ``src/app.py:load``."""
    intent: str
    code: str
    language: str = "python"
    weight: float = 1.0
    """How much a token of it counts in the loss, relative to those of other examples."""


@dataclass(frozen=True, kw_only=True)
class FillExample:
    """A file with a hole, and what belongs there."""

    id: str
    prefix: str
    suffix: str
    middle: str
    path: str = ""
    language: str = "python"
    kind: HoleKind = HoleKind.LINE
    context: tuple[ContextChunk, ...] = ()
    """Chunks of related files, most useful first, as in a completion."""
    learn_all: bool = False
    """Whether tuning learns the code around the hole too, which then is the code to learn and not only shown."""
    weight: float = 1.0
    """How much a token of it counts in the loss, relative to those of other examples."""


@dataclass(frozen=True, kw_only=True)
class EditExample:
    """A document in the middle of a change, a window of it, and the lines that belong there next."""

    id: str
    """Its commit, path and place."""
    moment: Moment
    place: Place
    answer: Lines
    """The window written again: with the next change made, or as it is where nothing follows."""
    weight: float = 1.0
    """How much a token of it counts in the loss, relative to those of other examples."""

    @property
    def window(self) -> Lines:
        """The lines that are to be written again."""
        return self.moment.lines[self.place.start : self.place.end]

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to be changed."""
        return self.answer == self.window


CompletionExample = IntentExample | FillExample
"""What completion is asked for."""
Example = CompletionExample | EditExample
AnyExample = TypeVar("AnyExample", IntentExample, FillExample, EditExample, CompletionExample, Example)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Examples in three disjoint parts, and their origin."""

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    """Used to choose the best checkpoint."""
    test: tuple[Example, ...] = ()
    """Never used in training."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    licence: str = "unknown"
    provenance: str = ""
    """Where the rows come from: file names, revision, split rule; for the model card."""
    prompt_tokens: int = 1024
    """Longest prompt, as in the study; longer ones are cut as in completion (fill) or dropped (intent)."""
    response_tokens: int = 256
    """Longest answer; longer examples are dropped."""
    tree: str = ""
    """The commit that a repository's code is learned of, where lines of newer ones are held out; else empty."""

    @property
    def digest(self) -> str:
        """sha256 of the training and validation examples, in order."""
        return examples_digest((*self.train, *self.validation))


def examples_digest(examples: Sequence[Example]) -> str:
    """Return the sha256 over the examples' fields, in order."""
    sha = hashlib.sha256()
    for example in examples:
        fields: dict[str, object] = msgspec.to_builtins(example)
        # What is as it is without the field: so data sets keep the digests that reports name.
        for name, usual in (("learn_all", False), ("weight", 1.0)):
            if fields.get(name) == usual:
                del fields[name]
        sha.update(msgspec.json.encode(fields))
        sha.update(b"\n")
    return sha.hexdigest()


def normalized(text: str) -> str:
    """Replace every run of white space by one space, with none at the ends."""
    return " ".join(text.split())


def question(example: Example) -> str:
    """Return the sentence, the window before and after, or the whole file; two parts must not share it."""
    if isinstance(example, IntentExample):
        return normalized(example.intent)
    if isinstance(example, EditExample):
        return normalized(join_lines((*example.window, *example.answer)))
    return normalized(example.prefix + example.middle + example.suffix)


def drop_duplicates(examples: Iterable[AnyExample], dropped: Counter[str]) -> list[AnyExample]:
    """Drop examples that repeat the question and answer of an earlier one; counted as ``duplicate``."""
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
    """Sort examples in an order that depends on them and ``seed`` only; equal questions stay together."""
    return sorted(examples, key=lambda example: (_rank(question(example), seed), _content(example)))


def take(examples: Sequence[AnyExample], count: int) -> tuple[list[AnyExample], list[AnyExample]]:
    """Split off the first ``count`` examples; examples with one question stay together.

    ``examples`` come from ``stable_order``. The first part has more than ``count`` only where a question repeats.
    """
    end = max(count, 0)
    while 0 < end < len(examples) and question(examples[end]) == question(examples[end - 1]):
        end += 1
    return list(examples[:end]), list(examples[end:])


def hold_out(examples: Iterable[AnyExample], share: float, seed: int) -> tuple[list[AnyExample], list[AnyExample]]:
    """Split off a share of the examples, at least one of two or more; none if all have the same question."""
    rows = stable_order(examples, seed)
    held_out, rest = take(rows, max(1, round(len(rows) * share)) if len(rows) > 1 else 0)
    return (held_out, rest) if rest else ([], held_out)


def split_by_hash(
    examples: Iterable[AnyExample], share: float, seed: int
) -> tuple[list[AnyExample], list[AnyExample], list[AnyExample]]:
    """Split into training, validation and test, of about ``share`` each, by a hash of each question.

    An example stays in its part when others are added. Where a part would be empty, the question with the next hash is
    taken: of three questions no part is empty, of two the test is, and one is learned.
    """
    rows = stable_order(examples, seed)
    left = list(dict.fromkeys(question(each) for each in rows))
    parts: dict[str, Split] = {}
    for part, until, others in ((Split.TEST, share, 2), (Split.VALIDATION, 2 * share, 1)):
        count = sum(int(_rank(each, seed)[:12], 16) < until * 16**12 for each in left)
        count = min(max(count, 1), max(0, len(left) - others))
        parts |= dict.fromkeys(left[:count], part)
        left = left[count:]
    made: dict[Split, list[AnyExample]] = {part: [] for part in Split}
    for each in rows:
        made[parts.get(question(each), Split.TRAIN)].append(each)
    return made[Split.TRAIN], made[Split.VALIDATION], made[Split.TEST]


def drop_overlap(
    examples: Iterable[AnyExample], others: Iterable[Example], dropped: Counter[str], reason: str
) -> list[AnyExample]:
    """Drop examples whose question is in ``others``; counted in ``dropped`` under ``reason``."""
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
    if isinstance(example, EditExample):
        newest = [] if not example.moment.edits else example.moment.edits[-1:]
        shown = [join_lines((*each.change.old, *each.change.new)) for each in newest]
        return (join_lines(example.window), join_lines(example.answer), *shown)
    return (example.prefix, example.suffix, example.middle)


def _rank(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()


def newest_first(paths: Sequence[str], times: Mapping[str, int], seed: int) -> list[str]:
    """Sort paths by the time of their last commit (seconds; 0: not known), and equal times by seed."""
    return sorted(paths, key=lambda path: (-times.get(path, 0), seeded_number(seed, path), path))


def split_files(weights: Mapping[str, int], *, validation: float, test: float) -> Mapping[str, Split]:
    """Assign whole files to the parts, given the number of examples by path, newest file first.

    The newest files are held out, so that the test asks for code that the model has not seen. ``validation`` and
    ``test`` are shares of all examples, above 0. With three files or more no part is empty.
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
    """Return a number that looks random and is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest(), "big")
