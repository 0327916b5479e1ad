"""No engine starts a process for a file that it may not load, and each goes on by itself when it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_core.child_process import ChildProcess
from peft_core.errors import EngineFailed, UnusableFile
from peft_core.status_types import EngineState
from peft_daemon.engines import supervisor
from peft_daemon.engines.base import LoadChecks
from peft_daemon.engines.llamacpp.engine import LlamaCppEngine, LlamaCppOptions
from peft_daemon.engines.supervisor import SupervisedEngine
from peft_daemon.engines.torch.engine import TorchEngine, TorchOptions

Make = Callable[[Path, LoadChecks], SupervisedEngine[Any]]
ENGINES: dict[str, Make] = {
    "llama.cpp": lambda path, checks: LlamaCppEngine(LlamaCppOptions("tiny", path, path.parent, checks=checks)),
    "torch": lambda path, checks: TorchEngine(TorchOptions("tiny", path, checks=checks)),
}


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_file_that_may_not_be_loaded_is_told_at_once_and_asked_about_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[str] = []
    spawn_called = asyncio.Event()
    asked = 0

    def model() -> Path:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise UnusableFile("model.gguf is damaged", why="its sha256", fix="Pull it")
        return tmp_path / "checked.gguf"

    async def spawn(module: str, first_line: bytes) -> ChildProcess:
        spawned.append(first_line.decode())
        spawn_called.set()
        raise EngineFailed("it stops here")

    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0,))
    monkeypatch.setattr(ChildProcess, "spawn", spawn)
    engine = ENGINES[kind](tmp_path / "model.gguf", LoadChecks(model, lambda _: None, lambda _: None))
    await engine.start()
    try:
        with pytest.raises(UnusableFile, match="Pull it"):
            await engine.ready()
        assert engine.status().state is EngineState.FAILED
        assert spawned == []
        await asyncio.wait_for(spawn_called.wait(), 20)
        assert str(tmp_path / "checked.gguf") in spawned[0]
    finally:
        await engine.stop()
