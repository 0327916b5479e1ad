"""All engines on the same weights, one after the other: reading, writing, memory, and the cost of an adapter.

    python benchmarks/engines.py [--adapter FOLDER] [--threads N] [--program LLAMA_SERVER]

With a program it runs behind the engine for llama.cpp, and again as the server that the upstream engine asks. Prints
one line of JSON per engine. Rates are medians of the runs; ``memory_mb`` is the child's, after them.
``adapter_ms`` is what the first token with an adapter takes longer than the second time, when it is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from peft_core.api_types import Timings
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine, GenerationRequest, Segment, default_threads
from peft_daemon.engines.upstream.engine import UpstreamEngine, UpstreamOptions
from peft_daemon.engines.upstream.failures import UpstreamAddress
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

RUNS, LINES, DECODE = 2, 12, 24
CONTEXT = 4096


async def measure(name: str, engine: Engine, adapter: Path | None) -> dict[str, Any]:
    """Rates and memory of one engine."""
    began = time.perf_counter()
    await engine.start()
    try:
        await engine.ready()
        result: dict[str, Any] = {
            "engine": name,
            "load_s": round(time.perf_counter() - began, 1),
        }
        runs = [await once(engine, number) for number in range(RUNS)]
        result["reads_tok_s"] = round(statistics.median(read_rate(t) for t in runs), 1)
        result["writes_tok_s"] = round(statistics.median(write_rate(t) for t in runs), 1)
        if adapter is not None and name.startswith("torch"):
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
    parser.add_argument("--program", type=Path, help="a llama-server")
    asked = parser.parse_args()
    common = Settings(threads=asked.threads, speculation="off")  # the text repeats
    model = open_store(common, Paths.from_environment()).path(catalogue.get(common.model))
    chosen: dict[str, dict[str, Any]] = {"llamacpp, the package's": {"llama_server": "wheel"}}
    if asked.program:
        chosen["llamacpp, the program"] = {"llama_server": str(asked.program)}
    for precision in ("float32", "bfloat16"):
        chosen[f"torch, {precision}"] = {"engine": "torch", "torch_precision": precision}
    for name, changes in chosen.items():
        with tempfile.TemporaryDirectory(prefix="pd-") as folder:
            engine = factory.create_engine(
                msgspec.structs.replace(common, **changes),
                model_id=common.model,
                model_path=model,
                context_tokens=CONTEXT,
                socket_folder=Path(folder),
            )
            print(json.dumps(asyncio.run(measure(name, engine, asked.adapter))), flush=True)
    if asked.program:
        with served(asked.program, model, asked.threads or default_threads()) as url:
            options = UpstreamOptions(UpstreamAddress(url), model_id=common.model, context_tokens=CONTEXT)
            print(json.dumps(asyncio.run(measure("upstream, the program", UpstreamEngine(options), None))), flush=True)


@contextmanager
def served(program: Path, model: Path, threads: int) -> Iterator[str]:
    """The program as a server of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-m", model, "--host", "127.0.0.1", "--port", port, "-c", CONTEXT, "-np", 1, "-t", threads]
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(f"{url}/health"):
            if server.poll() is not None:
                raise SystemExit(f"{program} ended with {server.returncode}")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    """Whether a server says that it is ready."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
