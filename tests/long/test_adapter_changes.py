"""Adapters that are changed, rolled back and removed under load: on each engine, with room for one and for all.

``PEFT_DAEMON_RACE_REQUESTS`` is how many answers each of the four cases waits for (2500).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from peft_core.status_types import LLAMACPP, TORCH
from support.adapter_race import AdapterRace
from support.tiny_serving import tiny_serving

REQUESTS = int(os.environ.get("PEFT_DAEMON_RACE_REQUESTS", "2500"))

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("loaded", [1, 8], ids=["one adapter loaded", "all adapters loaded"])
@pytest.mark.parametrize("engine", [LLAMACPP, pytest.param(TORCH, marks=pytest.mark.torch)])
def test_no_request_is_answered_by_another_adapter(tmp_path: Path, engine: str, loaded: int) -> None:
    with tiny_serving(engine, slots=0 if engine == TORCH else 2, max_loaded_adapters=loaded) as serving:
        race = AdapterRace(serving, tmp_path, seed=46)
        asyncio.run(race.run(REQUESTS))
    print(f"\n{engine}, {loaded} loaded: {race.outcome.line()}")
    assert race.outcome.wrong == []
    assert race.outcome.answered >= REQUESTS
    assert race.outcome.changes.total() >= REQUESTS / 100
