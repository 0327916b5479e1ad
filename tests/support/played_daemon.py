"""A real daemon whose model is played: it gives the answers that the test wrote down, at once.

Routes, service, pipeline, life cycle and adapters are the product's. Run as a script with what a starter hands over.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from peft_core.api_types import FinishReason, Timings
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_core.status_types import LLAMACPP, EngineState, EngineStatus
from peft_daemon import app
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, TokenLogprob
from peft_daemon.lifecycle.background_process import handover_environment, take_handover
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from peft_daemon.lifecycle.stop import stop_daemon
from peft_daemon.models.optimized import ModelFile
from peft_daemon.server import serve

SCRIPT = "PLAYED_SCRIPT"
TIMINGS = Timings(prompt_evaluated=64, prompt_ms=100, decode_tokens=16, decode_ms=80)
"""Of every answer, from its first text on."""
HERE = "\0"
"""Where an answer is held back after its beginning, see ``hold_rest``."""
OR = "\3"
"""Between the answers to a prompt, of which the request's seed chooses one."""
GUESSED, KNOWN = "\1", "\2"
"""How an answer begins that the model is unsure of, or sure; of others it tells no probability."""
LOGPROBS = {GUESSED: -9.0, KNOWN: -0.01}


class PlayedEngine:
    """Answers a prompt by the line it ends with; every prompt is written down."""

    id = LLAMACPP

    def __init__(self, script: Path) -> None:
        self._script = script

    async def start(self) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def idle(self) -> None:
        pass

    def status(self) -> EngineStatus:
        return EngineStatus(kind="played", state=EngineState.READY, model="played")

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) // 4 + 1 for text in texts]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        prompt = "".join(piece.text for piece in request.prompt) + request.begins_with
        if not request.max_tokens:
            with self._script.with_suffix(".read").open("a") as file:
                file.write(json.dumps(prompt) + "\n")
            yield GenerationChunk(reason=FinishReason.LENGTH)
            return
        with self._script.with_suffix(".asked").open("a") as file:
            file.write(json.dumps(prompt) + "\n")
        await self._let_go(".hold")
        answers: dict[str, str] = json.loads(self._script.read_text())
        answer = next((text for end, text in answers.items() if prompt.endswith(end)), "")
        choices = answer.split(OR)
        answer = choices[request.sampling.seed % len(choices)]
        logprob, answer = LOGPROBS.get(answer[:1]), answer.lstrip(GUESSED + KNOWN)
        for number, piece in enumerate(answer.split(HERE)):
            if number:
                await self._let_go(".hold_rest")
            told = () if logprob is None else (TokenLogprob(piece, logprob),)
            yield GenerationChunk(piece if number else request.begins_with + piece, told, TIMINGS)
        yield GenerationChunk(reason=FinishReason.STOP, timings=TIMINGS)

    async def _let_go(self, suffix: str) -> None:
        while self._script.with_suffix(suffix).exists():
            await asyncio.sleep(0.01)


class PlayedModel:
    """The side of the test: what is answered, and what was asked."""

    def __init__(self, script: Path) -> None:
        self.script = script
        self.answers({})

    def answers(self, answers: Mapping[str, str]) -> None:
        """From now on, answer each prompt that ends with a key with its value."""
        self.script.write_text(json.dumps(answers))

    def hold(self) -> None:
        """Answer nothing until ``let_go``."""
        self.script.with_suffix(".hold").touch()

    def hold_rest(self) -> None:
        """Give only what stands before ``HERE`` until ``let_go``."""
        self.script.with_suffix(".hold_rest").touch()

    def let_go(self) -> None:
        """Answer what was held back."""
        for suffix in (".hold", ".hold_rest"):
            self.script.with_suffix(suffix).unlink(missing_ok=True)

    @property
    def asked(self) -> list[str]:
        """The prompts so far."""
        return self._prompts(".asked")

    @property
    def read(self) -> list[str]:
        """The prompts that were only read so far."""
        return self._prompts(".read")

    def _prompts(self, suffix: str) -> list[str]:
        file = self.script.with_suffix(suffix)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@dataclass(frozen=True)
class Played:
    """An installation whose daemon runs, with a played model."""

    environ: dict[str, str]
    model: PlayedModel
    processes: list[subprocess.Popen[bytes]]
    """Of its daemons, the newest last."""

    @property
    def paths(self) -> Paths:
        return Paths.from_environment(self.environ)

    async def restart(self) -> None:
        """End the daemon and start another one in the same home."""
        await stop_daemon(self.paths)
        self.processes.append(await _served(self.model.script, self.environ))


def spawn(script: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The daemon that a client in this environment would start, as a child of this process."""
    merged = {**os.environ, **environ}
    paths = Paths.from_environment(environ)
    given = handover_environment(resolve(environ=merged, user_file=paths.config_file).settings, paths, merged)
    return subprocess.Popen([sys.executable, __file__], env={**given, SCRIPT: str(script)})


@asynccontextmanager
async def played_home(**variables: str) -> AsyncIterator[Played]:
    """A home whose daemon runs with a played model; every client in its environment finds it."""
    root = Path(tempfile.mkdtemp(prefix="pd-"))  # a socket path has room for 103 bytes
    environ = {"PEFT_DAEMON_HOME": str(root / "home"), "PEFT_DAEMON_SHIPPED_ADAPTERS": "false", **variables}
    home = Played(environ, PlayedModel(root / "script.json"), [])
    try:
        home.processes.append(await _served(home.model.script, environ))
        yield home
    finally:
        await stop_daemon(home.paths)
        for process in home.processes:
            process.wait(10)
        shutil.rmtree(root, ignore_errors=True)


async def _served(script: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a daemon and wait until it serves."""
    from support.waiting import until

    process, paths = spawn(script, environ), Paths.from_environment(environ)
    await until(lambda: find_running_daemon(paths) or process.poll() is not None, "a daemon that serves")
    assert process.poll() is None, "the daemon ended"
    return process


class _Store:
    def file_to_serve(self, model: object, settings: object) -> ModelFile:
        return ModelFile(Path(os.environ[SCRIPT]), "0" * 64)


if __name__ == "__main__":
    app.factory.create_engine = lambda *_, **__: PlayedEngine(Path(os.environ[SCRIPT]))  # type: ignore[assignment]
    app.open_store = lambda *_: _Store()  # type: ignore[assignment,return-value]
    started = take_handover(os.environ)
    assert started is not None, "run by a test"
    serve(*started, app.create_app)
