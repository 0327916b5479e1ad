"""Real engines under a limit of memory: one gives way to the other, and what never fits is refused at once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from peft_core.memory import family, read_memory
from peft_core.status_types import DaemonStatus, EngineState
from peft_daemon.engines.memory import MemoryCeiling, MemoryUse
from peft_daemon.models.catalogue import PROCESS_BYTES
from support.second_model import ID, second_model
from support.served_gguf import ServedGguf, served_gguf

SENTENCE = "add two numbers and return what comes out of it, as a function of both"


async def ask(served: ServedGguf) -> str:
    answer = await served.client.post("/v1/complete", json={"intent": SENTENCE, "max_tokens": 6})
    return str(answer.json()["model"])


def states(status: DaemonStatus) -> tuple[EngineState, EngineState]:
    assert status.intent_engine is not None
    return status.engine.state, status.intent_engine.state


def as_foreseen() -> MemoryUse:
    """Count each child as much as its need, as tiny models take less and this process of tests more than a daemon."""
    return MemoryUse((len(family(os.getpid())) - 1) * PROCESS_BYTES, read_memory())


async def test_two_models_that_do_not_fit_together_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft_daemon.app.MemoryCeiling", partial(MemoryCeiling, count=as_foreseen))
    second, limit_mb = second_model(tmp_path), int(1.5 * PROCESS_BYTES / 1_000_000)
    async with served_gguf(tmp_path, prepare_home=second.add, intent_model=ID, memory_limit_mb=limit_mb) as served:
        assert (await served.complete()).json()["model"] == "tiny"
        assert await ask(served) == ID
        assert states(await served.status()) == (EngineState.UNLOADED, EngineState.READY)
        assert (await served.complete(prefix="y = ")).json()["model"] == "tiny"
        now = await served.status()
        assert states(now) == (EngineState.READY, EngineState.UNLOADED)
        assert now.memory_limit_bytes == limit_mb * 1_000_000
        assert now.engine.restarts == 0


async def test_a_model_that_never_fits_is_refused_at_once_with_what_to_type(tmp_path: Path) -> None:
    async with served_gguf(tmp_path, settled=EngineState.FAILED, memory_limit_mb=50) as served:
        answer = await served.complete()
        error = answer.json()["error"]
        assert answer.status_code == 502
        assert "does not fit into memory" in error["message"] and "`memory_limit_mb` is 50" in str(error)
        engine = (await served.status()).engine
        assert engine.pid is None
        assert "memory_limit_mb" in engine.fix
