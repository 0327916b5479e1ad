"""llama.cpp's own benchmark beside the engine: how much of the program's speed reaches a completion.

    peft-daemon engine build
    python benchmarks/llama_bench.py

Both use the programs of one build, the same model, and as many threads. llama-bench reads 512 tokens in batches of
several sizes and writes 32; the engine does the same through its server, over HTTP, in steps that can be cancelled.
Rounds alternate, and each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.engines.base import GenerationRequest, Segment, default_threads
from peft_daemon.engines.builds.builder import InstalledBuild, list_builds
from peft_daemon.engines.builds.source import BENCH
from peft_daemon.engines.temporary import temporary_engine
from peft_daemon.engines.waiting import set_wait_policy
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.store import open_store

BATCHES = (16, 64, 512)
PROMPT_TOKENS, ANSWER_TOKENS = 512, 32
TEXT = "".join(f"def f{n}(x, y):\n    return x * {n} + y\n\n" for n in range(60))


def llama_bench(build: InstalledBuild, model: Path, threads: int, batch: int, *, reads: bool) -> float:
    """Return tokens per second of one run."""
    what = ("-p", str(PROMPT_TOKENS), "-n", "0") if reads else ("-p", "0", "-n", str(ANSWER_TOKENS))
    command = [str(build.program(BENCH)), "-m", str(model), "-t", str(threads), "-b", str(max(batch, 512))]
    command += ["-ub", str(batch), *what, "-r", "1", "-o", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (run,) = json.loads(done.stdout)
    return float(run["avg_ts"])


async def engine(settings: Settings, entry: ModelEntry, path: Path) -> tuple[float, float]:
    """Return tokens per second until the first token is there, and from then on."""
    async with temporary_engine(settings, entry, path) as one:
        text = TEXT
        while (await one.count_tokens([text]))[0] > PROMPT_TOKENS:
            text = text[: len(text) - 40]
        async for chunk in one.generate(GenerationRequest((Segment(text),), ANSWER_TOKENS)):
            if chunk.reason is not None:
                t = chunk.timings
                return 1000 * t.prompt_evaluated / t.first_token_ms, 1000 * t.decode_tokens / t.decode_ms
    raise AssertionError("an answer has an end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--wait-policy", choices=("active", "passive"), default="passive", help="of all threads")
    given = parser.parse_args()
    paths = Paths.from_environment()
    if not (builds := list_builds(paths)):
        parser.error("there is no build: type `peft-daemon engine build`")
    build, threads = builds[0], given.threads or default_threads()
    # Both wait alike; the engine's child finds it decided.
    set_wait_policy(given.wait_policy)
    resolved = resolve(user_file=paths.config_file).settings
    entry = open_catalogue(paths).get(resolved.model)
    path = open_store(resolved, paths).file_to_serve(entry, resolved).path
    settings = msgspec.structs.replace(
        resolved,
        llama_server=str(build.server),
        threads=threads,
        slots=1,
        speculation="off",
        wait_policy=given.wait_policy,
    )
    wheel = msgspec.structs.replace(settings, llama_server="wheel")
    engines = {
        "engine, this build": settings,
        **{
            f"engine, this build, batch_tokens = {batch}": msgspec.structs.replace(settings, batch_tokens=batch)
            for batch in (64,)
        },
        "engine, the package's llama.cpp": wheel,
    }
    reading: dict[str, list[float]] = {}
    writing: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for batch in BATCHES:
            speed = llama_bench(build, path, threads, batch, reads=True)
            reading.setdefault(f"llama-bench, batches of {batch}", []).append(speed)
        writing.setdefault("llama-bench", []).append(llama_bench(build, path, threads, 512, reads=False))
        for name, each in engines.items():
            read, wrote = asyncio.run(engine(each, entry, path))
            reading.setdefault(name, []).append(read)
            writing.setdefault(name, []).append(wrote)
    print(f"{build.record.name}, {entry.id}, {threads} threads, {given.wait_policy}, {given.rounds} rounds\n")
    table("reads", reading)
    table("writes", writing)


def table(what: str, speeds: dict[str, list[float]]) -> None:
    """Print the medians, and each as a share of llama-bench's best."""
    medians = {name: statistics.median(rounds) for name, rounds in speeds.items()}
    best = max(speed for name, speed in medians.items() if name.startswith("llama-bench"))
    print(f"| {what} | tokens/s | of llama-bench's best | rounds |\n|---|---|---|---|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:.1f} | {speed / best:.2f} | {_list(speeds[name])} |")
    print()


def _list(speeds: Sequence[float]) -> str:
    return ", ".join(f"{speed:.1f}" for speed in speeds)


if __name__ == "__main__":
    main()
