"""How fast an engine reads and writes with a model on this machine, measured with an engine of its own."""

from __future__ import annotations

from pathlib import Path

from peft_core.settings import Settings
from peft_daemon.engines.base import EngineSpeed, GenerationRequest, Segment
from peft_daemon.engines.temporary import temporary_engine
from peft_daemon.models.catalogue import ModelEntry

PROMPT_FUNCTIONS = 24
"""Small functions in the measured prompt: some 480 tokens."""
ANSWER_TOKENS = 32


async def measure_speed(
    settings: Settings,
    entry: ModelEntry,
    path: Path,
    *,
    functions: int = PROMPT_FUNCTIONS,
    answer_tokens: int = ANSWER_TOKENS,
) -> EngineSpeed:
    """Measure the engine of ``settings`` with the model at ``path``; takes its start and some seconds.

    The prompt has so many small ``functions``. Raises InvalidInput where the engine is not installed, EngineFailed
    where it cannot start or ends.
    """
    async with temporary_engine(settings, entry, path) as engine:
        text = "".join(f"def f{n}(x, y):\n    return x * {n} + y\n\n" for n in range(functions))
        async for chunk in engine.generate(GenerationRequest((Segment(text),), answer_tokens)):
            if chunk.reason is not None:
                t = chunk.timings
                return EngineSpeed(
                    1000 * t.prompt_evaluated / max(t.prompt_ms, 1), 1000 * t.decode_tokens / max(t.decode_ms, 1)
                )
    return EngineSpeed()
