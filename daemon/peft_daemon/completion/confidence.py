"""How likely a suggestion is right, by the model's own probabilities, and how much of it is sure enough to be shown.

A suggestion is right up to some point. The engine reports the log-probability of each token that it wrote, except of
those that it had guessed ahead and then confirmed. A logistic regression over a few sums of them says how likely the
text up to a point is what the user would write. A token that was not confirmed has no probability either, so those
without one count against the text. What is shown ends at the last point up to which that is likely enough:
the end of a line, or of a whole expression in the line of the cursor, never the middle of one.

The weights were fitted to lines of public repositories (``benchmarks/confidence.py``; figures in docs/performance.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from peft_core.code.document import Document
from peft_core.code.lexer import scan


class WrittenToken(NamedTuple):
    """A part of a generated text that came at once, usually one token."""

    begin: int
    end: int
    logprob: float | None
    """None: the engine did not say, as of tokens that were guessed ahead."""


class Evidence(NamedTuple):
    """What the engine said of a part of a text."""

    total: float
    """Sum of the log-probabilities that are known."""
    known: int
    unknown: int
    """Tokens without one."""


class Weights(NamedTuple):
    """Of the logistic regression over ``Evidence``."""

    bias: float
    total: float
    unknown: float


WEIGHTS = Weights(bias=1.57, total=1.65, unknown=-0.28)

_WHOLE_END = re.compile(r"(?<=[\w)\]}\"'`;])(?![\w])")
"""A point behind a name, a literal or a closing bracket."""


MAX_LOGIT = 60.0
"""Beyond it a probability is 0 or 1 as far as anybody can tell, and ``math.exp`` overflows somewhere."""


def logistic(logit: float) -> float:
    """Return the probability with these log-odds."""
    return 1 / (1 + math.exp(-max(-MAX_LOGIT, min(MAX_LOGIT, logit))))


def evidence(tokens: Iterable[WrittenToken], begin: int, end: int) -> Evidence:
    """Return what is known of the text from ``begin`` to ``end``; a token counts by the share of it that lies there."""
    total, known, unknown = 0.0, 0, 0
    for token in tokens:
        if token.end <= begin:
            continue
        if token.begin >= end:
            break
        if token.logprob is None:
            unknown += 1
            continue
        known += 1
        logprob = token.logprob
        if token.begin < begin:  # its beginning was typed, so it is likelier than it was
            logprob *= (token.end - begin) / (token.end - token.begin)
        total += logprob
    return Evidence(total, known, unknown)


def probability(found: Evidence, weights: Weights = WEIGHTS) -> float | None:
    """Return how likely a text is right, from 0 to 1; None if the engine said nothing of it."""
    if not found.known:
        return None
    logit = weights.bias + weights.total * found.total + weights.unknown * found.unknown
    return logistic(logit)


def points(text: str, document: Document, *, over: bool) -> list[int]:
    """Return where a suggestion may end, in order: behind whole expressions in the first line, and behind lines.

    A line may end within a block, but not within brackets or a string that it or a line before it opened. ``over``: the
    text does not grow any more, so its end is a point.
    """
    first = text.find("\n")
    line = text if first < 0 else text[:first]
    found = []
    here = document.lexer_state
    depth = len(here.stack)
    for match in _WHOLE_END.finditer(line):
        at = match.start()
        if at == len(line) and first < 0 and not over:
            break  # the word may go on
        state = scan(line[:at], document.language, here).state
        if state.code == here.code and len(state.stack) <= depth:
            found.append(at)
    ends = []
    for at in (at for at, character in enumerate(text) if character == "\n"):
        opened = scan(text[: at + 1], document.language, here).state.stack[depth:]
        if all(each == "}" for each in opened):
            ends.append(at)
    if over:
        ends.append(len(text))
    return sorted({*found, *ends})


def sure_part(
    text: str, tokens: Sequence[WrittenToken], begin: int, document: Document, *, least: float, over: bool
) -> tuple[int, float | None]:
    """Return where the longest part of ``text`` ends that is right with a probability of at least ``least``.

    Also returned is how likely the text is right a point further, where that is too little; None: nothing is left out.

    ``text`` stands at ``begin`` in what ``tokens`` are of. Where it may grow (not ``over``), what lies behind the last
    point, and the line end there, is left for later.
    """
    if not least:
        return len(text), None
    found = ((end, evidence(tokens, begin, begin + end)) for end in points(text, document, over=over))
    end, doubt = last_sure(found, least)
    return end if doubt is not None else end + text.startswith("\n", end), doubt


def last_sure(
    points: Iterable[tuple[int, Evidence]], least: float, weights: Weights = WEIGHTS
) -> tuple[int, float | None]:
    """Return the last point before the first that is less likely than ``least``, and how likely that one is.

    Each point comes with what is known of the text up to it. 0 stands for none, and None for no such point.
    """
    last = 0
    for end, found in points:
        likely = probability(found, weights)
        if likely is not None and likely < least:
            return last, likely
        last = end
    return last, None
