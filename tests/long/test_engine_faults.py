"""Engines that are killed, aborted, stopped and starved of memory under load, on each engine with the product's limits.

``PEFT_DAEMON_ENGINE_FAULTS`` is how many faults hit each engine (100).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from peft_core.status_types import LLAMACPP, TORCH
from support.engine_faults import EngineFaults
from support.tiny_serving import tiny_serving

ROUNDS = int(os.environ.get("PEFT_DAEMON_ENGINE_FAULTS", "100"))
LOADED = {LLAMACPP: 1, TORCH: 8}
"""Adapters that fit into an engine. llama.cpp starts another process for each, and faults hit that one too."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600 + 60 * ROUNDS)]


@pytest.mark.parametrize("engine", [LLAMACPP, pytest.param(TORCH, marks=pytest.mark.torch)])
def test_faults_of_the_engine_are_survived(tmp_path: Path, engine: str) -> None:
    with tiny_serving(engine, slots=0 if engine == TORCH else 2, max_loaded_adapters=LOADED[engine]) as serving:
        run = EngineFaults(serving, tmp_path, seed=46)
        try:
            before, after = asyncio.run(run.run(ROUNDS))
        finally:
            print(f"\n{engine}: {run.report.text()}", *run.report.wrong, sep="\n")
        print(f"{before} → {after}")
        assert run.report.wrong == []
        assert run.left_behind(before, after) == []
    assert run.report.faults.total() == ROUNDS
