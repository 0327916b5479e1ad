"""The three paths that a newcomer follows: a completion, an example in training, an item in an evaluation.

python -m shape.paths completion|training|evaluation     prints one JSON object
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shape.source import ROOT
from shape.trace import Trace, install, tracing
from support.waiting import until_answer

EXAMPLES = 12
"""What is done for each example, or for each batch of one, is called at least so often."""


@dataclass(frozen=True)
class MeasuredPath:
    """What some work passes through."""

    files: list[str]
    returns: int | None
    values: list[str]


def measured(name: str) -> MeasuredPath:
    """Follow one path, in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "shape.paths", name]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True, timeout=300)
    return MeasuredPath(**json.loads(done.stdout.splitlines()[-1]))


async def completion(folder: Path) -> MeasuredPath:
    """One request from the daemon's client to the engine's server and back; only that server is played."""
    import pytest

    from peft_daemon.client import CompleteRequest, DaemonClient
    from support.played_llama import PlayedLlama
    from support.served import daemon_here

    def request(text: str) -> CompleteRequest:
        return CompleteRequest(prefix=text, suffix="\n", max_tokens=4, document="a.py", language="python", stream=False)

    with pytest.MonkeyPatch.context() as patch:
        async with daemon_here(PlayedLlama(folder, ()), patch) as daemon:
            client = await DaemonClient.connect(paths=daemon.paths, start=False)
            await client.complete(request("x = "))  # what is done once, at the first request, is not on the path
            await until_answer(
                client.status, lambda now: not (now.active_requests or now.queued_requests), "what is prepared ahead"
            )
            with tracing() as trace:
                await client.complete(request("def f(x):\n    return x * "))
            await client.aclose()
    return MeasuredPath(trace.files(), trace.returns(), trace.made())


def example(folder: Path) -> MeasuredPath:
    """What each example of a data set passes through until its gradient is there."""
    options = ("--max-steps", str(EXAMPLES), "--batch-size", "1", "--threads", "1", "--no-activate", "--json")
    trace = _command(folder, "tune", "--dataset", _rows(folder, "train"), "--name", "a", *options)
    return MeasuredPath(trace.files(EXAMPLES), None, trace.made(EXAMPLES))


def item(folder: Path) -> MeasuredPath:
    """What each item of an evaluation passes through until it is in the report."""
    options = ("--strategy", "zero-shot", "--max-tokens", "2", "--at-once", "1", "--json")
    trace = _command(folder, "evaluate", "--dataset", _rows(folder, "test"), *options)
    return MeasuredPath(trace.files(EXAMPLES), None, trace.made(EXAMPLES))


def _rows(folder: Path, part: str) -> str:
    file = folder / "rows.jsonl"
    rows = [
        {"intent": f"add {n}", "code": f"x+{n}", "split": part if n < EXAMPLES else "validation"} for n in range(28)
    ]
    others = [{"intent": "take 1", "code": "x-1", "split": "train"}] if part != "train" else []
    file.write_text("".join(json.dumps(row) + "\n" for row in rows + others))
    return str(file)


def _command(folder: Path, *arguments: str) -> Trace:
    """Trace a command in a home with a tiny model."""
    from snapshots.used_home import UsedHome
    from support.tiny_served import tiny_gguf

    home = UsedHome(folder, tiny_gguf(folder, context=1024).path)
    os.environ.update(home.environ)
    runpy.run_path(str(ROOT / "tests" / "snapshots" / "hooks" / "sitecustomize.py"))
    _run("models", "pull", "tiny", "--from", str(home.model), "--json")
    with tracing() as trace:
        _run(*arguments)
    return trace


def _run(*arguments: Sequence[str] | str) -> None:
    sys.argv = ["peft-daemon", *map(str, arguments)]
    try:
        runpy.run_module("peft_daemon", run_name="__main__")
    except SystemExit as end:
        assert not end.code, (arguments, end.code)


if __name__ == "__main__":
    install()
    with tempfile.TemporaryDirectory(prefix="pd-") as root:
        kind = sys.argv[1]
        result = (
            asyncio.run(completion(Path(root)))
            if kind == "completion"
            else (example if kind == "training" else item)(Path(root))
        )
    print(json.dumps(asdict(result)))
