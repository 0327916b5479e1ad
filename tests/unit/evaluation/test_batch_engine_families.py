"""Answers in batches are those that each model gives alone, for each family that has a decoder only."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from peft_core.errors import InvalidInput
from peft_daemon.engines.base import GenerationRequest, Segment
from support.tiny_folder import FILL_FORMATS, write_folder

pytestmark = pytest.mark.torch

CONTEXT = 64
PROMPTS = ("def re(x): ret", "def re(x): ", "x", "def re(x): return x + 1 + 1 + 1 + 1", "def re(x): ret")


def requests() -> list[GenerationRequest]:
    return [GenerationRequest(prompt=(Segment(each),), max_tokens=6) for each in PROMPTS]


async def text(engine: Any, request: GenerationRequest) -> str:
    return "".join([chunk.text async for chunk in engine.generate(request)])


@pytest.mark.parametrize("family", [family for family in FILL_FORMATS if family != "t5"])
async def test_batches_change_no_answer(family: str, tmp_path: Path) -> None:
    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder
    from peft_daemon.engines.torch.generation import TextGenerator
    from peft_evaluation.batch_engine.engine import BatchedEngine

    folder = write_folder(family, tmp_path)
    base = load_hub_folder(folder, Precision.FLOAT32)
    alone = TextGenerator(base, AdapterCache(base, 1), context_tokens=CONTEXT, step_tokens=100)
    wanted = ["".join(chunk.text for chunk in alone.generate(each, lambda: False)) for each in requests()]
    engine = BatchedEngine(
        lambda: load_hub_folder(folder, Precision.FLOAT32), model_id="tiny", context_tokens=CONTEXT, rows=3
    )
    await engine.start()
    try:
        assert await asyncio.gather(*(text(engine, each) for each in requests())) == wanted
    finally:
        await engine.stop()
    assert len(set(wanted)) > 2


async def test_a_model_with_an_encoder_is_refused(tmp_path: Path) -> None:
    from peft_daemon.engines.torch.base_model import Precision, load_hub_folder
    from peft_evaluation.batch_engine.engine import BatchedEngine

    base = load_hub_folder(write_folder("t5", tmp_path), Precision.FLOAT32)
    engine = BatchedEngine(lambda: base, model_id="tiny", context_tokens=CONTEXT, rows=3)
    await engine.start()
    with pytest.raises(InvalidInput, match="they have an encoder"):
        await engine.ready()
