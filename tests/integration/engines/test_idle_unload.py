"""A model that nobody uses frees its memory (`unload_after_s`), and the next request has it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.status_types import EngineState
from peft_daemon.engines.on_demand import OnDemandEngine
from support.served_gguf import served_gguf


async def test_promise_29_an_unused_model_is_unloaded_and_the_next_request_loads_it_and_finds_what_it_had_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = {"prefix": "def total(a, b):\n    c = a + b\n" * 8 + "    return ", "suffix": "\n", "document": "d"}
    init = OnDemandEngine.__init__
    monkeypatch.setattr(OnDemandEngine, "__init__", lambda self, engine, idle_s: init(self, engine, idle_s / 20))
    async with served_gguf(tmp_path, unload_after_s=1) as served:
        # It was loaded at the start, before anybody asked.
        loaded = await served.status()
        assert loaded.engine.pid is not None
        first = (await served.complete(**ask)).json()
        gone = await served.until(lambda status: status.engine.state is EngineState.UNLOADED)
        assert gone.engine.pid is None
        assert gone.engine.memory_bytes == 0
        health = await served.client.get("/health")
        assert health.status_code == 200
        again = (await served.complete(**{**ask, "max_tokens": 3, "document": "e"})).json()
        assert again["model"] == first["model"]
        assert again["timings"]["prompt_reused"] > 32
