"""Comparison of a copy with the original model: quality (loss and completed lines) and speed, on excerpts of real code.

The excerpts are of Python's own library, the same ones for the same Python. Both models get the same prompts. No
tokenizer is needed: of all next tokens, those that agree with the text count together, so that a prompt may end
anywhere. Speed is a multiple of the original's, measured in turns.
"""

from __future__ import annotations

import math
import random
import statistics
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft_core.api_types import Timings
from peft_core.errors import EngineFailed, NotFound
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.formats import PromptField, PromptFormat
from peft_daemon.engines.base import Engine, GenerationRequest, Prompt, Segment, TokenLogprob

BEFORE, LENGTH, AFTER = 500, 360, 200
"""Characters before the part that is asked about, of that part, and after it."""

EXCERPT_COUNT = 24
"""Over which the interval of the loss is taken: places of one excerpt are not independent."""
ALTERNATIVES_PER_TOKEN = 100
MAX_LINE_TOKENS = 32
MAX_LOSS_NATS = 0.03
"""Nats: a copy may be at most this much worse, with 95 % confidence; 3 % of perplexity."""
MIN_LINES_P = 0.05
_Z_95 = statistics.NormalDist().inv_cdf(0.95)
SPEED_ROUNDS = 5
SPEED_TOKENS = 24


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a file; what is asked about begins at ``start`` and ends at ``end``."""

    name: str
    text: str
    start: int
    end: int

    def word_starts(self, least_apart: int = 10) -> list[int]:
        """Positions between ``start`` and ``end`` where a word begins, ``least_apart`` characters or more apart.

        The space before a word counts to it, as most tokenizers make one token of both, also behind an indentation.
        """
        found: list[int] = []
        for at in range(self.start, self.end):
            if self.text[at].isalnum() and not self.text[at - 1].isalnum():
                place = at - 1 if self.text[at - 1] == " " else at
                if not found or place - found[-1] >= least_apart:
                    found.append(place)
        return found

    def cuts(self, most: int = 3) -> list[int]:
        """One position in each line, of ``most`` lines at the most: a word with which not all is written yet."""
        found: list[int] = []
        for at in self.word_starts(1):
            begin, end = self.text.rfind("\n", 0, at) + 1, self.text.find("\n", at)
            written, left = self.text[begin:at].strip(), self.text[at:end].strip()
            if written and len(left) >= 4 and not (found and begin <= found[-1]):
                found.append(at)
        return found[:most]


def load_excerpts(count: int, folder: Path | None = None, seed: int = 5) -> list[Excerpt]:
    """``count`` excerpts of different modules, by default of Python's library; plain ASCII, from a module's middle.

    Raises NotFound where there are not so many modules, as with a library that comes without sources.
    """
    folder = folder or Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    random.Random(seed).shuffle(files)  # noqa: S311  (a choice to repeat, no secret)
    found: list[Excerpt] = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        begin = text.rfind("\n", 0, len(text) // 2) + 1
        piece = text[begin : begin + BEFORE + LENGTH + AFTER]
        if len(piece) == BEFORE + LENGTH + AFTER and piece.isascii():
            found.append(Excerpt(file.name, piece, BEFORE, BEFORE + LENGTH))
        if len(found) == count:
            return found
    raise NotFound(
        f"{len(found)} of the {count} Python modules that are needed to judge a copy",
        why=f"{folder} has no more",
        fix="Use a Python that comes with the sources of its library",
    )


@dataclass(frozen=True)
class CopyQuality:
    """The quality of a copy against the original; ``CopyFigures`` explains each number."""

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
        return self.loss_bound <= MAX_LOSS_NATS and self.worse_lines_p >= MIN_LINES_P


async def compare_quality(
    original: Engine,
    copy: Engine,
    texts: Sequence[Excerpt],
    form: PromptFormat,
    *,
    lease: AdapterLease | None,
    advance: Callable[[int, int], None],
) -> CopyQuality:
    """Ask both about all of ``texts``, of which there must be two or more; raises what the engine raises."""
    engines = (original, copy)
    differences: list[float] = []
    places, lines = 0, 0
    right: list[tuple[bool, bool]] = []
    same = 0
    for number, text in enumerate(texts):
        starts = text.word_starts()
        losses = [[await _measure_loss(engine, lease, text, at) for at in starts] for engine in engines]
        differences.append(statistics.fmean(losses[1]) - statistics.fmean(losses[0]))
        places += len(starts)
        for at in text.cuts():
            wanted = text.text[at : text.text.find("\n", at)].rstrip()
            theirs, ours = [await _complete_line(engine, lease, text, at, form) for engine in engines]
            right.append((theirs == wanted, ours == wanted))
            same += theirs == ours
            lines += 1
        advance(number + 1, len(texts))
    loss = statistics.fmean(differences)
    return CopyQuality(
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


async def _measure_loss(engine: Engine, lease: AdapterLease | None, text: Excerpt, at: int) -> float:
    """Nats by which the next token surprises the model, whichever token agrees with the text."""
    prompt = (Segment(text.text[:at]),)
    async for chunk in engine.generate(GenerationRequest(prompt, 1, lease, logprobs=ALTERNATIVES_PER_TOKEN)):
        if chunk.logprobs:
            return surprise(chunk.logprobs[0], text.text[at:])
    return -math.log(1 / ALTERNATIVES_PER_TOKEN)  # it would end here


def surprise(answer: TokenLogprob, following: str) -> float:
    """Minus the logarithm of the probability of all tokens with which ``following`` begins.

    Where none is among the alternatives, they count as likely as the least likely of those: a bound from below.
    """
    found = [value for token, value in answer.top if token and following.startswith(token)]
    if not found:
        return -min((value for _, value in answer.top), default=answer.logprob)
    return -math.log(min(1.0, sum(math.exp(value) for value in found)))


async def _complete_line(engine: Engine, lease: AdapterLease | None, text: Excerpt, at: int, form: PromptFormat) -> str:
    """What the model writes up to the end of the line."""
    after = text.text[text.text.find("\n", at) :]
    prompt = _fill_format(form, text.text[:at], after)
    answer = ""
    async for chunk in engine.generate(GenerationRequest(prompt, MAX_LINE_TOKENS, lease, stop=("\n", *form.stop))):
        answer += chunk.text
    return answer.removesuffix(form.end).rstrip() if form.end else answer.rstrip()


def _fill_format(form: PromptFormat, before: str, after: str) -> Prompt:
    texts = {PromptField.PREFIX: before, PromptField.SUFFIX: after}
    return tuple(piece if isinstance(piece, Segment) else Segment(texts.get(piece, "")) for piece in form.pieces)


@dataclass(frozen=True)
class SpeedGain:
    """Medians over the rounds of the original's time by the copy's."""

    reading: float
    writing: float

    @property
    def both(self) -> float:
        """Their geometric mean: a completion spends about as long on one as on the other."""
        return math.sqrt(self.reading * self.writing)


async def measure_speed(
    original: Engine,
    copy: Engine,
    texts: Sequence[Excerpt],
    advance: Callable[[int, int], None],
    rounds: int = SPEED_ROUNDS,
) -> SpeedGain:
    """Let both read the same text that neither has in its cache, and write; raises what the engine raises."""
    reading, writing = [], []
    for number in range(rounds):
        text = texts[number % len(texts)]
        # Both orders alike: a processor gets slower while it gets warm.
        order = (original, copy) if number % 2 else (copy, original)
        took = {engine: await _time_once(engine, f"# {number}\n{text.text[: text.start]}") for engine in order}
        reading.append(_ms_per_token(took[original], "prompt") / _ms_per_token(took[copy], "prompt"))
        writing.append(_ms_per_token(took[original], "decode") / _ms_per_token(took[copy], "decode"))
        advance(number + 1, rounds)
    return SpeedGain(statistics.median(reading), statistics.median(writing))


def _ms_per_token(timings: Timings, phase: str) -> float:
    """Milliseconds by token; answers may differ in length."""
    if phase == "prompt":
        return timings.prompt_ms / max(1, timings.prompt_evaluated)
    return timings.decode_ms / max(1, timings.decode_tokens)


async def _time_once(engine: Engine, text: str) -> Timings:
    async for chunk in engine.generate(GenerationRequest((Segment(text),), SPEED_TOKENS)):
        if chunk.reason is not None:
            return chunk.timings
    raise EngineFailed("the engine ended without an answer", fix="Type the command again")
