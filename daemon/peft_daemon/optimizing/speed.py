"""How fast a copy reads and writes, as a multiple of the original's speed, measured in turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft_core.api_types import Timings
from peft_core.errors import EngineFailed
from peft_daemon.engines.base import Engine, Finish, GenerationRequest, Segment
from peft_daemon.optimizing.excerpts import Excerpt

ROUNDS = 5
TOKENS = 24


@dataclass(frozen=True)
class Gain:
    """Medians over the rounds of the original's time by the copy's."""

    reading: float
    writing: float

    @property
    def both(self) -> float:
        """Their geometric mean: a completion spends about as long on one as on the other."""
        return math.sqrt(self.reading * self.writing)


async def measure(
    original: Engine, copy: Engine, texts: Sequence[Excerpt], tell: Callable[[int, int], None], rounds: int = ROUNDS
) -> Gain:
    """Let both read the same text that neither has in its cache, and write; raises what the engine raises."""
    reading, writing = [], []
    for number in range(rounds):
        text = texts[number % len(texts)]
        # Both orders alike: a processor gets slower while it gets warm.
        order = (original, copy) if number % 2 else (copy, original)
        took = {engine: await _once(engine, f"# {number}\n{text.text[: text.start]}") for engine in order}
        reading.append(_by_token(took[original], "prompt") / _by_token(took[copy], "prompt"))
        writing.append(_by_token(took[original], "decode") / _by_token(took[copy], "decode"))
        tell(number + 1, rounds)
    return Gain(statistics.median(reading), statistics.median(writing))


def _by_token(timings: Timings, phase: str) -> float:
    """Milliseconds by token; answers may differ in length."""
    if phase == "prompt":
        return timings.prompt_ms / max(1, timings.prompt_evaluated)
    return timings.decode_ms / max(1, timings.decode_tokens)


async def _once(engine: Engine, text: str) -> Timings:
    async for item in engine.generate(GenerationRequest((Segment(text),), TOKENS)):
        if isinstance(item, Finish):
            return item.timings
    raise EngineFailed("the engine ended without an answer", fix="Type the command again")
