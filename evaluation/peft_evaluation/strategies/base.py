"""What a strategy decides: the solved examples and pieces of other files an item is shown with, and the adapter.

Everything else (items, prompt format, budget, decoding, post-processing) is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peft_core.api_types import ContextChunk
from peft_core.code.document import lines_of
from peft_evaluation.items import Item
from peft_tuning.data.examples import Example, IntentExample

NO_SEED = 0
"""Of strategies that draw nothing."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way, with all its parameters, applied to one set of items."""

    id: str
    adapter: str | None = None
    """Name or digest in the registry."""
    seeds: tuple[int, ...] = (NO_SEED,)
    """The items are answered once with each."""
    shown: Mapping[int, Sequence[tuple[Example, ...]]] = field(default_factory=dict)
    """By seed, then by position of the item: the examples before the question, in the order they are shown."""
    contexts: tuple[tuple[ContextChunk, ...], ...] | None = None
    """By position of the item: pieces of other files, in place of those its example has. None: those."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the record."""

    def examples(self, seed: int, index: int) -> tuple[Example, ...]:
        """Those shown with one item."""
        return self.shown[seed][index] if seed in self.shown else ()

    def context(self, index: int) -> tuple[ContextChunk, ...] | None:
        """Pieces of other files for one item; None: those its example has."""
        return None if self.contexts is None else self.contexts[index]


def questions(items: Sequence[Item]) -> list[str]:
    """What is compared with the pool."""
    return [query(item.example) for item in items]


def query(example: Example) -> str:
    """The text that stands for an example when likeness counts: a sentence, or the lines around a hole."""
    if isinstance(example, IntentExample):
        return example.intent
    before, after = lines_of(example.prefix)[-8:], lines_of(example.suffix)[:4]
    return "\n".join(line.removesuffix("\n") for line in (*before, *after))
