"""When the chunks of a document may change: hardly ever, as each change makes the engine read the whole prompt anew.

Chunks stand at the beginning of a prompt. While somebody types they stay as they are, whatever was found since. What
was found is adopted when the prompt is read in idle time anyway, and then only if it is mostly new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peft_core.api_types import ContextChunk

ENOUGH = 0.5
"""Part of the lines found that is shown already, from which on a change is not worth its reading."""


@dataclass(frozen=True)
class StableContext:
    """The chunks of one document: those it is shown with, and those that were found last."""

    shown: tuple[ContextChunk, ...] = ()
    found: tuple[ContextChunk, ...] | None = None

    def offered(self, found: Sequence[ContextChunk]) -> StableContext:
        """With chunks that were found; what is shown stays."""
        return replace(self, found=tuple(found))

    def adopted(self) -> StableContext:
        """With what was found last, if that is mostly new; as it is if nothing was found since."""
        if self.found is None:
            return self
        return StableContext(self.found if _mostly_new(self.found, self.shown) else self.shown)


def _mostly_new(found: Sequence[ContextChunk], shown: Sequence[ContextChunk]) -> bool:
    known = {(each.path, line) for each in shown for line in each.text.split("\n") if line.strip()}
    lines = [(each.path, line) for each in found for line in each.text.split("\n") if line.strip()]
    return sum(line in known for line in lines) < ENOUGH * len(lines)
