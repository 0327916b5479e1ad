"""Beam search over one prompt that is read once: what transformers finds when it reads everything itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peft_daemon.engines.base import AdapterLease
from peft_daemon.models.catalogue import PromptFormats
from peft_evaluation.answering import Question
from peft_evaluation.decoding import Beams
from peft_tuning.examples import IntentExample
from support.tiny_models import tiny_base

pytestmark = pytest.mark.torch

WIDTH, TOKENS = 4, 6


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_base("qwen2")


def answerer(base: Any) -> Any:
    from peft_evaluation.beams import BeamAnswerer

    ids = PromptFormats(fill="qwen-fim-v1", intent="instruct-v1")
    return BeamAnswerer(base, ids, Beams(WIDTH), context_tokens=256, max_tokens=TOKENS)


def question(intent: str, adapter: AdapterLease | None = None) -> Question:
    return Question(example=IntentExample(id="i", intent=intent, code=""), shown=(), adapter=adapter, seed=0)


def plain(base: Any, intent: str) -> list[list[int]]:
    """The same search by transformers alone."""
    import torch

    from peft_tuning.tokenizer import LiteralTokenizer

    text = f"### Instruction:\n{intent}\n### Response:\n"
    tokens = LiteralTokenizer(base.tokenizer).encode_text(text)
    found = base.model.generate(
        input_ids=torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        num_beams=WIDTH,
        num_return_sequences=WIDTH,
        do_sample=False,
        max_new_tokens=TOKENS,
    )
    rows: list[list[int]] = found[:, len(tokens) :].tolist()
    return rows


async def test_the_beams_are_those_of_a_plain_search_whatever_was_asked_before(base: Any) -> None:
    asked = answerer(base)
    for intent in ("sort a list", "sort a dict", "sort a list", "open"):
        reused, rows = asked._search(asked._tokenizer.encode_text(f"### Instruction:\n{intent}\n### Response:\n"), None)
        ends = set(asked._ends)
        expected = [[t for t in row if t not in ends] for row in plain(base, intent)]
        assert rows == expected
    assert reused > 10, "the common beginning is not read again"


async def test_as_many_texts_come_back_as_there_are_beams(base: Any) -> None:
    given = await answerer(base).answer(question("sort a list"))
    assert len(given.texts) == WIDTH
    assert given.prompt_tokens > 0 and given.answer_tokens <= WIDTH * TOKENS


async def test_an_adapter_changes_the_search_and_is_taken_off_again(base: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        tiny_base("qwen2").model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    model.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "auto_mapping": None}))
    lease = AdapterLease("d", tmp_path, 4.0)
    asked = answerer(base)
    tokens = asked._tokenizer.encode_text("### Instruction:\nsort a list\n### Response:\n")
    before = asked._search(tokens, None)[1]
    assert asked._search(tokens, lease)[1] != before
    assert asked._search(tokens, None)[1] == before
