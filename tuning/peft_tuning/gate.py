"""The gate: decide whether a new adapter is better than the base on unseen code, and at which scale it applies.

There are three sets of holes, and none of them was trained on. The scales 0, 0.25, … 1 are tried on the first. The best
of them is compared with the base on the second, hole by hole. The third is general code, Python's own library, on which
the adapter should have forgotten nothing. The scale is chosen on other holes than the adapter is judged by, so the
p-value means what it says. Holes are filled with the engine, prompt and post-processing that completion uses.

The test is a paired permutation test on edit similarity (signs of the differences flipped, one-sided). Exact matches
and McNemar's exact test go into the record beside it.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import msgspec
from rapidfuzz.distance import Levenshtein

from peft_core.code.document import Document
from peft_core.code.structure import parse_structure
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import MARGIN_TOKENS
from peft_daemon.completion.stream import complete_once
from peft_daemon.engines.base import Engine
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.data.repository.holes import HoleSettings, cut_holes
from peft_tuning.events import GateVerdict, HoleAverage, Loading, ScaleScore
from peft_tuning.statistics import SIGNIFICANT, mcnemar, paired_permutation

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
ON_OR_OFF_SCALES = (0.0, 1.0)
"""The scales of adapters that can only be on or off."""
MIN_HOLES = 8
"""With fewer holes no difference can be significant enough to believe."""
ANSWER_TOKENS = 96
"""Longest answer, the same as in an editor."""
GENERAL_MODULES = (
    "argparse.py", "bisect.py", "calendar.py", "configparser.py", "csv.py", "difflib.py", "fractions.py", "heapq.py",
    "shlex.py", "statistics.py", "textwrap.py", "zipapp.py",
)  # fmt: skip
GENERAL_CONTEXT_CHARS = 4000
"""Characters of a module of Python's library on each side of a hole."""


class GateHoles(msgspec.Struct, frozen=True):
    """The three sets of holes."""

    sweep: tuple[FillExample, ...]
    judged: tuple[FillExample, ...]
    general: tuple[FillExample, ...]


class HoleScore(msgspec.Struct, frozen=True):
    """The score of one answer."""

    id: str
    kind: HoleKind
    exact: bool
    similarity: float
    """1 - Levenshtein distance / length of the longer, of characters."""
    answer: str


async def judge(
    engine: Engine,
    adapter: AdapterLease,
    holes: GateHoles,
    prompt_format: PromptFormat,
    *,
    prompt_tokens: int,
    on_progress: OnProgress[Loading],
    scales: Sequence[float] = SCALES,
) -> GateVerdict:
    """Sweep the scales, compare with the base, and check for forgetting; ``scales`` begin with 0.

    Raises what the engine raises.
    """
    total = len(holes.sweep) * len(scales) + 2 * (len(holes.judged) + len(holes.general))
    done = 0

    async def score(what: str, which: Sequence[FillExample], scale: float) -> tuple[HoleScore, ...]:
        def count() -> None:
            nonlocal done
            done += 1
            on_progress(Loading(what=what, done=done, of=total))

        lease = AdapterLease(adapter.digest, adapter.path, scale) if scale else None
        return await score_holes(engine, which, prompt_format, lease, prompt_tokens=prompt_tokens, on_scored=count)

    sweep = [ScaleScore(scale, average_scores(await score(f"scale {scale:g}", holes.sweep, scale))) for scale in scales]
    # Of equally good scales the smallest, which changes least.
    best = max(sweep, key=lambda point: (point.average.similarity, -point.scale)).scale
    scale = best or scales[-1]
    base, tuned = await score("base", holes.judged, 0.0), await score("adapter", holes.judged, scale)
    general_base = await score("general code, base", holes.general, 0.0)
    general = await score("general code, adapter", holes.general, scale)
    p_similarity = paired_permutation(
        [after.similarity - before.similarity for before, after in zip(base, tuned, strict=True)], alternative="greater"
    )
    won = sum(after.exact and not before.exact for before, after in zip(base, tuned, strict=True))
    lost = sum(before.exact and not after.exact for before, after in zip(base, tuned, strict=True))
    activate, reason = _decide(best, average_scores(base), average_scores(tuned), p_similarity)
    return GateVerdict(
        activate=activate,
        reason=reason,
        scale=best,
        sweep=tuple(sweep),
        base=average_scores(base),
        adapter=average_scores(tuned),
        p_similarity=p_similarity,
        p_exact=mcnemar(won, lost, alternative="greater"),
        general_base=average_scores(general_base),
        general_adapter=average_scores(general),
    )


def _decide(best: float, base: HoleAverage, tuned: HoleAverage, p: float) -> tuple[bool, str]:
    gain = f"similarity {base.similarity:.3f} → {tuned.similarity:.3f}, exact {base.exact:.0%} → {tuned.exact:.0%}"
    if base.holes < MIN_HOLES:
        return False, f"only {base.holes} held-out holes to judge by, {MIN_HOLES} are needed"
    if not best:
        return False, f"no scale was better than the base ({gain} at scale 1)"
    if p >= SIGNIFICANT:
        return False, f"no difference shown on {base.holes} held-out holes: {gain}, p = {p:.3f}"
    return True, f"better on {base.holes} held-out holes: {gain}, p = {p:.3f}"


def average_scores(scores: Sequence[HoleScore]) -> HoleAverage:
    """Return the means; zeros without scores."""
    if not scores:
        return HoleAverage(0, 0.0, 0.0)
    return HoleAverage(len(scores), fmean(s.exact for s in scores), fmean(s.similarity for s in scores))


async def score_holes(
    engine: Engine,
    holes: Sequence[FillExample],
    prompt_format: PromptFormat,
    adapter: AdapterLease | None,
    *,
    prompt_tokens: int,
    on_scored: Callable[[], None],
) -> tuple[HoleScore, ...]:
    """Fill every hole once, greedily; ``on_scored`` is called after each. Raises what the engine raises."""
    scores = []
    for hole in holes:
        job = CompletionJob(
            document=Document.normalized(hole.prefix, hole.suffix, path=hole.path, language=hole.language),
            format=prompt_format,
            context_tokens=prompt_tokens + ANSWER_TOKENS + MARGIN_TOKENS,
            max_tokens=ANSWER_TOKENS,
            context=hole.context,
            adapter=adapter,
        )
        end = await complete_once(engine, job)
        scores.append(score_hole(hole, end.text))
        on_scored()
    return tuple(scores)


def score_hole(hole: FillExample, answer: str) -> HoleScore:
    """Compare an answer with the code that was cut out; white space at the end does not count."""
    wanted, given = hole.middle.rstrip(), answer.rstrip()
    return HoleScore(hole.id, hole.kind, given == wanted, Levenshtein.normalized_similarity(given, wanted), answer)


def general_holes(count: int) -> tuple[FillExample, ...]:
    """Cut ``count`` line holes into Python's library, the same for one version of Python; fewer without its modules."""
    library = Path(sysconfig.get_path("stdlib"))
    settings = HoleSettings(shares={HoleKind.LINE: 1.0})
    by_module = []
    for module in GENERAL_MODULES:
        if not (library / module).is_file():
            continue
        text = (library / module).read_text(encoding="utf-8")
        holes = cut_holes(parse_structure(text, "python"), seed=module, settings=settings, avoid=())
        by_module.append([_example(module, text, hole.start, hole.end) for hole in holes])
    turns = (each[turn] for turn in range(count) for each in by_module if turn < len(each))
    return tuple(example for example, _ in zip(turns, range(count), strict=False))


def _example(module: str, text: str, start: int, end: int) -> FillExample:
    return FillExample(
        id=f"{module}:{start}",
        prefix=text[max(0, start - GENERAL_CONTEXT_CHARS) : start],
        middle=text[start:end],
        suffix=text[end : end + GENERAL_CONTEXT_CHARS],
        path=module,
        kind=HoleKind.LINE,
    )
