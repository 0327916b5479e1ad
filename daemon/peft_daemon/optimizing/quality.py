"""Whether a copy answers as well as the original: how likely it holds real code to be, and which lines it completes.

Both are paired: the same prompts go to both. Knows no tokenizer: of all next tokens, those that agree with the text
count together, so that a prompt may end anywhere.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.formats import PromptFormat, Slot
from peft_daemon.engines.base import Delta, Engine, GenerationRequest, Prompt, Segment, TokenLogprob
from peft_daemon.optimizing.excerpts import Excerpt

EXCERPTS = 24
"""Over which the interval of the loss is taken: places of one excerpt are not independent."""
ALTERNATIVES = 100
LINE_TOKENS = 32
LOSS_BOUND = 0.03
"""Nats: a copy may be at most this much worse, with 95 % confidence; 3 % of perplexity."""
LINES_P = 0.05
_Z_95 = statistics.NormalDist().inv_cdf(0.95)


@dataclass(frozen=True)
class Quality:
    """What was found; ``optimized.Figures`` says what each number is."""

    loss: float
    loss_bound: float
    places: int
    lines: int
    right: int
    right_original: int
    only_original: int
    """Lines that the original completed and the copy did not."""
    same: int

    @property
    def worse_lines_p(self) -> float:
        """Probability of a difference in lines like this, or a larger one, between equals (exact sign test)."""
        only_copy = self.right - (self.right_original - self.only_original)
        differ = self.only_original + only_copy
        return float(sum(math.comb(differ, k) for k in range(self.only_original, differ + 1)) / 2**differ)

    @property
    def passes(self) -> bool:
        """Whether the copy may stand in for the original."""
        return self.loss_bound <= LOSS_BOUND and self.worse_lines_p >= LINES_P


async def judge(
    original: Engine,
    copy: Engine,
    texts: Sequence[Excerpt],
    form: PromptFormat,
    *,
    lease: AdapterLease | None,
    tell: Callable[[int, int], None],
) -> Quality:
    """Ask both about all of ``texts``, of which there must be two or more; raises what the engine raises."""
    engines = (original, copy)
    differences: list[float] = []
    places, lines = 0, 0
    right: list[tuple[bool, bool]] = []
    same = 0
    for number, text in enumerate(texts):
        starts = text.word_starts()
        losses = [[await _loss(engine, lease, text, at) for at in starts] for engine in engines]
        differences.append(statistics.fmean(losses[1]) - statistics.fmean(losses[0]))
        places += len(starts)
        for at in text.cuts():
            wanted = text.text[at : text.text.find("\n", at)].rstrip()
            theirs, ours = [await _line(engine, lease, text, at, form) for engine in engines]
            right.append((theirs == wanted, ours == wanted))
            same += theirs == ours
            lines += 1
        tell(number + 1, len(texts))
    loss = statistics.fmean(differences)
    return Quality(
        loss=loss,
        loss_bound=loss + t_95(len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences)),
        places=places,
        lines=lines,
        right=sum(ours for _, ours in right),
        right_original=sum(theirs for theirs, _ in right),
        only_original=sum(theirs and not ours for theirs, ours in right),
        same=same,
    )


def t_95(freedom: int) -> float:
    """Student's t, one-sided 95 %, to half a percent from 4 degrees of freedom on (Cornish and Fisher's expansion)."""
    z = _Z_95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))


async def _loss(engine: Engine, lease: AdapterLease | None, text: Excerpt, at: int) -> float:
    """Nats by which the next token surprises the model, whichever token agrees with the text."""
    prompt = (Segment(text.text[:at]),)
    async for item in engine.generate(GenerationRequest(prompt, 1, lease, logprobs=ALTERNATIVES)):
        if isinstance(item, Delta) and item.logprobs:
            return surprise(item.logprobs[0], text.text[at:])
    return -math.log(1 / ALTERNATIVES)  # it would end here


def surprise(answer: TokenLogprob, following: str) -> float:
    """Minus the logarithm of the probability of all tokens with which ``following`` begins.

    Where none is among the alternatives, they count as likely as the least likely of those: a bound from below.
    """
    found = [value for token, value in answer.top if token and following.startswith(token)]
    if not found:
        return -min((value for _, value in answer.top), default=answer.logprob)
    return -math.log(min(1.0, sum(math.exp(value) for value in found)))


async def _line(engine: Engine, lease: AdapterLease | None, text: Excerpt, at: int, form: PromptFormat) -> str:
    """What the model writes up to the end of the line."""
    after = text.text[text.text.find("\n", at) :]
    prompt = _filled(form, text.text[:at], after)
    answer = ""
    async for item in engine.generate(GenerationRequest(prompt, LINE_TOKENS, lease, stop=("\n", *form.stop))):
        if isinstance(item, Delta):
            answer += item.text
    return answer.removesuffix(form.end).rstrip() if form.end else answer.rstrip()


def _filled(form: PromptFormat, before: str, after: str) -> Prompt:
    texts = {Slot.PREFIX: before, Slot.SUFFIX: after}
    return tuple(piece if isinstance(piece, Segment) else Segment(texts.get(piece, "")) for piece in form.pieces)
