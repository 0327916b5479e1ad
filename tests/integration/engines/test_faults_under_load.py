"""Engines that are killed, aborted and starved of memory under load; ``tests/long`` has more of it, and hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peft_core.status_types import LLAMACPP
from support.engine_faults import EngineFaults
from support.tiny_serving import tiny_serving

ROUNDS = 3
KINDS = ("kill", "abort", "memory")
"""A hang is noticed after seconds; ``test_engine_contract`` has one with shorter limits."""


def test_faults_of_the_engine_are_survived(tmp_path: Path) -> None:
    with tiny_serving(LLAMACPP, slots=2) as serving:
        run = EngineFaults(serving, tmp_path, seed=3, kinds=KINDS)
        before, after = asyncio.run(run.run(ROUNDS))
        print(f"\n{run.report.text()}\n{before} → {after}")
        assert run.report.wrong == []
        assert run.left_behind(before, after) == []
    assert run.report.faults.total() == ROUNDS
    assert run.report.requests > 0
