"""Adapters that are changed, rolled back and removed while clients ask; ``tests/long`` asks more, and each engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from peft_core.status_types import LLAMACPP
from support.adapter_race import AdapterRace
from support.tiny_serving import tiny_serving

REQUESTS = 80


@pytest.mark.parametrize("loaded", [1, 8], ids=["one adapter loaded", "all adapters loaded"])
def test_no_request_is_answered_by_another_adapter(tmp_path: Path, loaded: int) -> None:
    with tiny_serving(LLAMACPP, slots=2, max_loaded_adapters=loaded) as serving:
        race = AdapterRace(serving, tmp_path, seed=7)
        asyncio.run(race.run(REQUESTS))
    print(f"\n{race.outcome.line()}")
    assert race.outcome.wrong == []
    assert race.outcome.answered >= REQUESTS
    assert race.outcome.changes.total() > 0
