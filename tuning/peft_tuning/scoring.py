"""How well holes are filled by what would be served: the same engine, prompt and post-processing as completion.

Exact match and edit similarity, each per hole, so that two scores of the same holes can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from statistics import fmean

import msgspec
from rapidfuzz.distance import Levenshtein

from peft_core.code.document import Document
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.following import Completion
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.pipeline import Job, Pipeline
from peft_daemon.completion.prompt import MARGIN_TOKENS
from peft_daemon.engines.base import Engine
from peft_tuning.examples import FillExample, HoleKind

ANSWER_TOKENS = 96
"""As many as an editor asks for."""


class HoleScore(msgspec.Struct, frozen=True):
    """What came of one hole."""

    id: str
    kind: HoleKind
    exact: bool
    similarity: float
    """1 - Levenshtein distance / length of the longer, of characters."""
    answer: str


class Average(msgspec.Struct, frozen=True):
    """Of some holes."""

    holes: int
    exact: float
    similarity: float


def average(scores: Sequence[HoleScore]) -> Average:
    """Means; zeros when there are none."""
    if not scores:
        return Average(0, 0.0, 0.0)
    return Average(len(scores), fmean(s.exact for s in scores), fmean(s.similarity for s in scores))


async def score_holes(
    engine: Engine,
    holes: Sequence[FillExample],
    prompt_format: PromptFormat,
    adapter: AdapterLease | None,
    *,
    prompt_tokens: int,
    tell: Callable[[], None],
) -> tuple[HoleScore, ...]:
    """Fill every hole once, greedily; ``tell`` is called after each. Raises what the engine raises."""
    scores = []
    pipeline = Pipeline(engine)
    for hole in holes:
        job = Job(
            document=Document.normalized(hole.prefix, hole.suffix, path=hole.path, language=hole.language),
            format=prompt_format,
            context_tokens=prompt_tokens + ANSWER_TOKENS + MARGIN_TOKENS,
            max_tokens=ANSWER_TOKENS,
            context=hole.context,
        )
        answer = ""
        async with aclosing(pipeline.run(job, adapter)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    answer = part.text
        scores.append(scored(hole, answer))
        tell()
    return tuple(scores)


def scored(hole: FillExample, answer: str) -> HoleScore:
    """Compare an answer with what was cut out; white space at the end does not count."""
    wanted, given = hole.middle.rstrip(), answer.rstrip()
    return HoleScore(hole.id, hole.kind, given == wanted, Levenshtein.normalized_similarity(given, wanted), answer)
