"""The text that post-processing steps work on.

A step never adds to the end of a text and looks at complete lines only, so that what has been shown once stays: of a
draft that is not ``settled`` a step may hold lines back until it knows more, and a later call gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from peft_core.code.document import Document
from peft_daemon.completion.cursor import Cursor


@dataclass(frozen=True)
class Draft:
    """A completion in the making."""

    text: str
    done: bool = False
    """Nothing can be added to the text any more: decoding may stop."""
    final: bool = False
    """The model has ended; the text is all there is."""
    truncated: bool = False
    """Final, but because the model was stopped (out of tokens or time) in the middle of what it had to say."""
    replace_after: int = 0
    """Characters after the cursor that the text overwrites."""

    @property
    def settled(self) -> bool:
        """Whether the end of the text is known."""
        return self.done or self.final

    def cut(self, end: int) -> Draft:
        """The text up to ``end``, with nothing to follow."""
        return replace(self, text=self.text[:end], done=True)

    def hold(self, end: int) -> Draft:
        """The text up to ``end``; the rest may come later."""
        return replace(self, text=self.text[:end])

    def line_starts(self) -> list[int]:
        """Offsets at which the lines of the text begin; the first is 0, and the end of the text comes last."""
        starts, at = [0], self.text.find("\n") + 1
        while at:
            starts.append(at)
            at = self.text.find("\n", at) + 1
        if starts[-1] != len(self.text):
            starts.append(len(self.text))
        return starts


Step = Callable[[Draft, Document, Cursor], Draft]
