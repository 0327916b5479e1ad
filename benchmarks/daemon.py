"""The daemon's own numbers, on the real model: start, overhead, memory, cancellation.

    python benchmarks/daemon.py [--rounds 30] [--json]

- serving: `peft-daemon start --no-wait` spawned → it answers /health, and → the model is ready (file cached);
- overhead: wall time of a request at the client minus the time it spent in the engine and waiting for it;
- memory: resident, daemon and engine, after a prompt that fills the context;
- cancel: the client hangs up → the engine is idle, while it reads a prompt and while it writes.

Nothing else should run meanwhile: all of it is wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from peft_core.api_types import CompleteRequest, Task
from peft_core.paths import Paths
from peft_daemon.client import DaemonClient, resolve
from peft_daemon.engines.base import GenerationRequest, Segment
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float
    worst: float


class Result(msgspec.Struct, frozen=True):
    """All figures of one run."""

    serving_ms: Spread
    ready_ms: Spread
    overhead_ms: Spread
    memory_mb: float
    memory_limit_mb: float
    cancel_reading_ms: Spread
    cancel_writing_ms: Spread


def spread(values: list[float]) -> Spread:
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1])


async def starts(rounds: int) -> tuple[Spread, Spread]:
    serving, ready = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "peft_daemon", "start", "--no-wait"], check=True, capture_output=True)
        async with await DaemonClient.connect(start=False) as client:
            await client.status()
            serving.append(1000 * (time.perf_counter() - began))
            await client.wait_ready(60)
            ready.append(1000 * (time.perf_counter() - began))
        subprocess.run([sys.executable, "-m", "peft_daemon", "stop"], check=True, capture_output=True)
    return spread(serving), spread(ready)


async def overheads(client: DaemonClient, rounds: int) -> Spread:
    values = []
    for n in range(rounds + 3):
        request = CompleteRequest(
            prefix=f"def scale(values, factor):\n    return [v * factor for v in values]\n\n\nx{n} = sc",
            suffix="\n",
            task=Task.FILL,
            single_line=True,
            max_tokens=4,
        )
        began = time.perf_counter()
        timings = (await client.complete(request)).timings
        values.append(1000 * (time.perf_counter() - began) - timings.queue_ms - timings.engine_ms)
    return spread(values[3:])


async def memory_mb(client: DaemonClient) -> float:
    await client.complete(CompleteRequest(prefix="".join(f"value_{n} = {n}\n" for n in range(2000)), max_tokens=1))
    return (await client.status()).memory_bytes / 1e6


async def cancels(rounds: int, *, writing: bool) -> Spread:
    settings = resolve().settings
    entry = catalogue.get(settings.model)
    values, phase = [], random.Random(0)
    with tempfile.TemporaryDirectory(prefix="pd-") as folder:
        engine = LlamaCppEngine(
            LlamaCppOptions(entry.id, open_store(settings, Paths.from_environment()).path(entry), Path(folder))
        )
        await engine.start()
        await engine.ready()
        for n in range(rounds):
            text = f"# {n}\n" if writing else f"# {n}\n" + "".join(f"value_{n} = {n}\n" for n in range(300))
            stream = engine.generate(GenerationRequest((Segment(text),), 500))
            if writing:
                await anext(stream)
            else:
                first = asyncio.ensure_future(anext(stream))
                # At any phase of a reading step.
                await asyncio.sleep(0.4 + phase.random())
            began = time.perf_counter()
            if not writing:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
            await stream.aclose()
            await engine.idle()
            values.append(1000 * (time.perf_counter() - began))
        await engine.stop()
    return spread(values)


async def measure(rounds: int) -> Result:
    settings = resolve().settings
    model_bytes = catalogue.get(settings.model).bytes
    serving, ready = await starts(max(3, rounds // 6))
    async with await DaemonClient.connect() as client:
        await client.wait_ready(60)
        overhead = await overheads(client, rounds)
        memory = await memory_mb(client)
    subprocess.run([sys.executable, "-m", "peft_daemon", "stop"], check=True, capture_output=True)
    return Result(
        serving_ms=serving,
        ready_ms=ready,
        overhead_ms=overhead,
        memory_mb=memory,
        memory_limit_mb=1.2 * model_bytes / 1e6 + 150,
        cancel_reading_ms=await cancels(max(8, rounds), writing=False),
        cancel_writing_ms=await cancels(max(8, rounds), writing=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # A home of its own: the figures must not depend on, or disturb, a daemon in use.
    models = Paths.from_environment().models
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as home:
        os.environ["PEFT_DAEMON_MODELS_DIR"] = os.environ.get("PEFT_DAEMON_MODELS_DIR", str(models))
        os.environ["PEFT_DAEMON_HOME"] = home
        result = asyncio.run(measure(options.rounds))
    if options.json:
        print(msgspec.json.encode(result).decode())
        return
    goals = {
        "serving_ms": "< 1500",
        "overhead_ms": "p50 < 5",
        "cancel_reading_ms": "≤ 100",
        "cancel_writing_ms": "≤ 100",
    }
    for name in result.__struct_fields__:
        value = getattr(result, name)
        if isinstance(value, Spread):
            text = f"p50 {value.p50:8.1f}   p95 {value.p95:8.1f}   worst {value.worst:8.1f}"
        else:
            text = f"{value:12.1f}"
        print(f"{name:<20} {text}   {goals.get(name, '')}")


if __name__ == "__main__":
    main()
