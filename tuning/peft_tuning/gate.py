"""Whether a new adapter is better than none on code it has not seen, and how strongly it is to apply.

Three sets of holes, none of them trained on: on the first the scales 0, 0.25, … 1 are tried; on the second the best
of them is compared with the base, hole by hole; the third is general code, on which the adapter should have forgotten
nothing. The scale is chosen on other holes than those it is judged by, so the test's p means what it says.

The test is a paired permutation test on edit similarity (signs of the differences flipped, one-sided). Exact matches
and McNemar's exact test go into the record beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.engines.base import Engine
from peft_tuning.examples import FillExample
from peft_tuning.scoring import Average, HoleScore, average, score_holes
from peft_tuning.statistics import SIGNIFICANT, mcnemar, paired_permutation

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
ON_OR_OFF = (0.0, 1.0)
"""For adapters that cannot apply by halves."""
LEAST_HOLES = 8
"""With fewer no difference can be significant enough to believe."""
FORGOTTEN = 0.05
"""Loss of mean similarity on general code from which on the verdict warns."""

Tell = Callable[[str, int, int], None]
"""Called with what is being scored, how many holes are done, and of how many."""


class Holes(msgspec.Struct, frozen=True):
    """What the gate looks at."""

    sweep: tuple[FillExample, ...]
    judged: tuple[FillExample, ...]
    general: tuple[FillExample, ...]


class ScaleScore(msgspec.Struct, frozen=True):
    """One point of the sweep."""

    scale: float
    average: Average


class Verdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """What the gate found."""

    activate: bool
    reason: str
    scale: float
    """The best of the sweep; 0 when that is the base."""
    sweep: tuple[ScaleScore, ...]
    base: Average
    """On the judged holes."""
    adapter: Average
    p_similarity: float
    p_exact: float
    general_base: Average
    general_adapter: Average
    """The forgetting check."""

    @property
    def forgets(self) -> bool:
        """Whether general code suffers."""
        return self.general_base.similarity - self.general_adapter.similarity > FORGOTTEN

    @property
    def metrics(self) -> dict[str, float]:
        """For the manifest."""
        return {
            "gate_holes": float(self.base.holes),
            "gate_similarity_base": self.base.similarity,
            "gate_similarity": self.adapter.similarity,
            "gate_exact_base": self.base.exact,
            "gate_exact": self.adapter.exact,
            "gate_p_similarity": self.p_similarity,
            "gate_p_exact": self.p_exact,
            "general_similarity_base": self.general_base.similarity,
            "general_similarity": self.general_adapter.similarity,
            **{f"sweep_similarity_{point.scale:g}": point.average.similarity for point in self.sweep},
        }


async def judge(
    engine: Engine,
    adapter: AdapterLease,
    holes: Holes,
    prompt_format: PromptFormat,
    *,
    prompt_tokens: int,
    tell: Tell,
    scales: Sequence[float] = SCALES,
) -> Verdict:
    """Sweep, compare and check for forgetting; ``scales`` begin with 0. Raises what the engine raises."""
    total = len(holes.sweep) * len(scales) + 2 * (len(holes.judged) + len(holes.general))
    done = 0

    async def score(what: str, which: Sequence[FillExample], scale: float) -> tuple[HoleScore, ...]:
        def one() -> None:
            nonlocal done
            done += 1
            tell(what, done, total)

        lease = AdapterLease(adapter.digest, adapter.path, scale) if scale else None
        return await score_holes(engine, which, prompt_format, lease, prompt_tokens=prompt_tokens, tell=one)

    sweep = [ScaleScore(scale, average(await score(f"scale {scale:g}", holes.sweep, scale))) for scale in scales]
    # Of equals the weaker: it changes less.
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
    activate, reason = _decide(best, average(base), average(tuned), p_similarity)
    return Verdict(
        activate=activate,
        reason=reason,
        scale=best,
        sweep=tuple(sweep),
        base=average(base),
        adapter=average(tuned),
        p_similarity=p_similarity,
        p_exact=mcnemar(won, lost, alternative="greater"),
        general_base=average(general_base),
        general_adapter=average(general),
    )


def _decide(best: float, base: Average, tuned: Average, p: float) -> tuple[bool, str]:
    gain = f"similarity {base.similarity:.3f} → {tuned.similarity:.3f}, exact {base.exact:.0%} → {tuned.exact:.0%}"
    if base.holes < LEAST_HOLES:
        return False, f"only {base.holes} held-out holes to judge by, {LEAST_HOLES} are needed"
    if not best:
        return False, f"no scale was better than the base ({gain} at scale 1)"
    if p >= SIGNIFICANT:
        return False, f"no difference shown on {base.holes} held-out holes: {gain}, p = {p:.3f}"
    return True, f"better on {base.holes} held-out holes: {gain}, p = {p:.3f}"
