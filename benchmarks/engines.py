"""Both engines on the same weights, one after the other: reading, writing, memory, and the cost of an adapter.

    python benchmarks/engines.py [--adapter FOLDER] [--threads N]

Prints one line of JSON per engine. Rates are medians of the runs; ``memory_mb`` is the child's, after them.
``adapter_ms`` is what the first token with an adapter takes longer than the second time, when it is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from peft_core.api_types import Timings
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine, GenerationRequest, Segment
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

RUNS, LINES, DECODE = 2, 12, 24
ENGINES = (("llamacpp", "auto"), ("torch", "float32"), ("torch", "bfloat16"))


async def measure(settings: Settings, model: Path, folder: Path, adapter: Path | None) -> dict[str, Any]:
    """Rates and memory of one engine."""
    engine = factory.create_engine(
        settings, model_id=settings.model, model_path=model, context_tokens=4096, socket_folder=folder
    )
    began = time.perf_counter()
    await engine.start()
    try:
        await engine.ready()
        result: dict[str, Any] = {
            "engine": settings.engine,
            "precision": settings.torch_precision if settings.engine == "torch" else "Q4_K_M",
            "load_s": round(time.perf_counter() - began, 1),
        }
        runs = [await once(engine, number) for number in range(RUNS)]
        result["reads_tok_s"] = round(statistics.median(read_rate(t) for t in runs), 1)
        result["writes_tok_s"] = round(statistics.median(write_rate(t) for t in runs), 1)
        if adapter is not None and settings.engine == "torch":
            lease = AdapterLease("a" * 64, adapter)
            first, second = [(await once(engine, 90 + n, lease)).first_token_ms for n in range(2)]
            result["adapter_ms"] = round(first - second)
        result["memory_mb"] = round(engine.status().memory_bytes / 1e6)
        return result
    finally:
        await engine.stop()


async def once(engine: Engine, number: int, adapter: AdapterLease | None = None) -> Timings:
    """The timings of one generation on a prompt nobody has read yet."""
    text = f"# {number}\n" + "".join(f"def f{n}(x, y):\n    return x * {n} + y\n\n" for n in range(LINES))
    async for chunk in engine.generate(GenerationRequest((Segment(text),), DECODE, adapter=adapter)):
        if chunk.reason is not None:
            return chunk.timings
    raise AssertionError("the last chunk has a reason")


def read_rate(timings: Timings) -> float:
    """Tokens of the prompt per second."""
    return 1000 * timings.prompt_evaluated / timings.prompt_ms


def write_rate(timings: Timings) -> float:
    """Tokens of the answer per second, without the first, which reading the prompt gives."""
    return 1000 * (timings.decode_tokens - 1) / timings.decode_ms


def main() -> None:
    """Measure all engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, help="a PEFT folder for the torch engine")
    parser.add_argument("--threads", type=int, default=0)
    asked = parser.parse_args()
    paths = Paths.from_environment()
    for engine, precision in ENGINES:
        settings = Settings(
            engine=engine,  # type: ignore[arg-type]
            torch_precision=precision,  # type: ignore[arg-type]
            threads=asked.threads,
            speculation="off",  # the text repeats
        )
        model = open_store(settings, paths).path(catalogue.get(settings.model))
        with tempfile.TemporaryDirectory(prefix="pd-") as folder:
            print(json.dumps(asyncio.run(measure(settings, model, Path(folder), asked.adapter))), flush=True)


if __name__ == "__main__":
    main()
