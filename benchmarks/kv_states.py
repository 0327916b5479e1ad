"""What a saved KV state is worth: the first token of a prompt that was never read, and after a restart.

    python benchmarks/kv_states.py [--tokens 1000] [--rounds 3] [--threads N] [--json]

Medians of the rounds, in milliseconds. ``save_ms`` is saving one slot (llama.cpp's part and the checksum);
``kept`` is the first token while the slot still holds the prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec

from peft_core.api_types import Timings
from peft_core.paths import Paths
from peft_daemon.client import resolve
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions, SavedStatesOptions
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store


class Result(msgspec.Struct, frozen=True):
    """One run."""

    prompt_tokens: int
    cold_ms: float
    kept_ms: float
    restored_ms: float
    restored_of_cold: float
    save_ms: float
    bytes: int


async def first_token(engine: LlamaCppEngine, text: str) -> Timings:
    async with aclosing(engine.generate(GenerationRequest((Segment(text),), 1))) as chunks:
        async for chunk in chunks:
            if chunk.reason is not None:
                return chunk.timings
    raise AssertionError("the last chunk has a reason")


async def measure(options: LlamaCppOptions, rounds: int, tokens: int) -> Result:
    cold: list[float] = []
    kept: list[float] = []
    restored: list[float] = []
    saves: list[float] = []
    size = length = 0
    for number in range(rounds):
        text = f"# {number}\n" + "".join(f"def f{n}(x, y):\n    return x * {n} + y\n\n" for n in range(tokens // 17))
        with tempfile.TemporaryDirectory(prefix="pd-") as folder:
            own = replace(options, states=SavedStatesOptions(Path(folder) / "kv", 10**9, "bench"))
            for restarted in (False, True):
                engine = LlamaCppEngine(own)
                await engine.start()
                await engine.ready()
                timings = await first_token(engine, text)
                (restored if restarted else cold).append(timings.first_token_ms)
                if not restarted:
                    length = timings.prompt_tokens
                    kept.append((await first_token(engine, text)).first_token_ms)
                    began = time.perf_counter()
                    await engine._current.server.keep_states()  # type: ignore[union-attr]
                    saves.append(1000 * (time.perf_counter() - began))
                    size = sum(path.stat().st_size for path in (Path(folder) / "kv").iterdir())
                await engine.stop()
    middle = statistics.median
    return Result(
        *(length, middle(cold), middle(kept), middle(restored), middle(restored) / middle(cold), middle(saves), size)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    settings = resolve().settings
    entry = catalogue.get(settings.model)
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        model = open_store(settings, Paths.from_environment()).path(entry)
        options = LlamaCppOptions(entry.id, model, Path(folder), threads=asked.threads)
        result = asyncio.run(measure(options, asked.rounds, asked.tokens))
    if asked.json:
        print(msgspec.json.encode(result).decode())
        return
    for name in result.__struct_fields__:
        print(f"{name:<18} {getattr(result, name):12.2f}")


if __name__ == "__main__":
    main()
