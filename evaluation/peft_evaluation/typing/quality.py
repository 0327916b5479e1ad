"""How good a suggestion is where it is shown: what the document would have at the cursor, against what it will have.

What is compared is what remains of the cursor's line; where nothing does, the next line that is not empty.
"""

from __future__ import annotations

import msgspec

from peft_evaluation.metrics.similarity import similarity
from peft_evaluation.typing.screen import Screen


class Judged(msgspec.Struct, frozen=True):
    """One suggestion against the truth."""

    exact: bool
    """The line is right to its last character, white space at its end aside."""
    similarity: float
    """Edit similarity of the line, 0 to 1."""
    offered: int
    """Characters shown ..."""
    right: int
    """... and those of them, from the first on, that will stand there: what a person could accept."""


SILENT = Judged(exact=False, similarity=0.0, offered=0, right=0)
"""Nothing is shown."""


def judge(screen: Screen, truth: str) -> Judged:
    """What the screen shows, against what comes next in the original."""
    shown = screen.shown
    if shown is None:
        return SILENT
    behind = screen.document[screen.cursor + shown.replaced :]
    would, will = next_line(shown.text + behind), next_line(truth)
    return Judged(
        exact=would == will,
        similarity=similarity(would, will)["similarity"],
        offered=len(shown.text),
        right=_common(shown.text, truth),
    )


def next_line(text: str) -> str:
    """The rest of the line, or, after a line end, the first line that is not empty; without white space at its end."""
    rest, end, below = text.partition("\n")
    if rest.strip() or not end:
        return rest.rstrip()
    lines = (line.rstrip() for line in below.split("\n"))
    return "\n" + next((line for line in lines if line), "")


def _common(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
