"""What a model writes behind a text, while it is written and afterwards.

An answer is a fact about one question and one text before the cursor: whoever typed on in agreement with it needs no
new one (``typed_since``). Does not cover where its pieces come from, nor what of it is shown.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from peft_core.api_types import FinishReason, Timings
from peft_core.code.document import Document, normalize_newlines
from peft_daemon.completion.prompt import contradicts, unheld
from peft_daemon.engines.base import Delta, Finish

LONG_PREFIX = 32_000
"""Characters from which on a client may have cut the text before the cursor, at another place each time."""
ANCHOR = 1_000
CLOSERS = frozenset(")]}\"'`")
MOST_CLOSERS = 3
"""What an editor inserts or types over by itself: a few brackets and quotes right after the cursor."""


@dataclass(frozen=True)
class Question:
    """All that decides an answer but the text around the cursor: document, format, adapter, context, limits."""

    document: str
    rest: Hashable


class Answer:
    """One generation's text as it grows; ``prefix`` and ``suffix`` are what stood around it when it began."""

    def __init__(self, document: Document, held: str = "") -> None:
        self.prefix, self.suffix = document.prefix, document.suffix
        self.text = ""
        """What follows ``prefix``, with ``\\n`` line ends."""
        self.timings = Timings()
        self.reason: FinishReason | None = None
        """How the engine ended it; None while it runs and where it was ended from outside."""
        self.over = False
        self.cut_off = False
        """It was ended from outside: there was more to come."""
        self._raw, self._held = "", held

    def add(self, item: Delta | Finish) -> None:
        """Take the engine's next item; an answer that contradicts what was typed is over, and empty."""
        self.timings = item.timings
        if isinstance(item, Finish):
            self.reason, self.over = item.reason, True
            return
        self._raw += item.text
        if contradicts(self._raw, self._held):
            self.text, self.over = "", True
        else:
            self.text = unheld(normalize_newlines(self._raw), self._held)

    def end(self) -> None:
        """Nothing more comes."""
        self.over = True

    def cut(self) -> None:
        """It is ended from outside."""
        self.cut_off = self.cut_off or not self.over
        self.over = True

    def agrees(self, typed: str) -> bool:
        """Whether it begins with ``typed``, or may still."""
        return self.text.startswith(typed) or (not self.over and typed.startswith(self.text))


def typed_since(answer: Answer, document: Document) -> str | None:
    """What was typed since the answer began; None where anything else was changed.

    Brackets and quotes right after the cursor may have come or gone, as editors insert the closing ones and let the
    user type over them.
    """
    if not same_behind(answer.suffix, document.suffix):
        return None
    old, new = answer.prefix, document.prefix
    if new.startswith(old):
        return new[len(old) :]
    if min(len(old), len(new)) < LONG_PREFIX:
        return None
    end = new.rfind(old[-ANCHOR:]) + ANCHOR
    overlap = min(end, len(old))
    return new[end:] if end > ANCHOR and new[end - overlap : end] == old[len(old) - overlap :] else None


def same_behind(old: str, new: str) -> bool:
    """Whether two texts after the cursor are the same but for closing brackets and quotes at their beginning."""
    longer, shorter = (old, new) if len(old) >= len(new) else (new, old)
    extra = longer[: len(longer) - len(shorter)]
    return len(extra) <= MOST_CLOSERS and CLOSERS.issuperset(extra) and longer.endswith(shorter)
