"""A run is resumed only as it was begun; what differs is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from peft_core.errors import Conflict, NotFound
from peft_tuning.job import RunIdentity, load_identity, require_same_run, save_identity
from peft_tuning.methods.base import MethodOptions

BEGUN = RunIdentity(
    base_sha256="a" * 64,
    quantization="Q4_K_M, de-quantized",
    precision="float32",
    data_digest="b" * 64,
    prompt_formats={"fill": "qwen-fim-v1", "intent": "qwen-chat-v1"},
    prompt_tokens=64,
    response_tokens=64,
    method="lora",
    options=MethodOptions(rank=2),
    epochs=5,
    batch_size=8,
    batch_tokens=1024,
    learning_rate=3e-4,
    warmup=0.05,
    seed=42,
    evaluations_per_epoch=5,
    patience=None,
    max_steps=None,
    limit=None,
    validation_limit=None,
    threads=2,
    processes=1,
    device="cpu",
    optimizer="adafactor",
)


def test_the_same_run_is_resumed(tmp_path: Path) -> None:
    save_identity(tmp_path / "new", BEGUN)
    require_same_run(load_identity(tmp_path / "new"), BEGUN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 42, is 1"),
        ({"options": MethodOptions(rank=3)}, 'options was .*"rank":2.* is .*"rank":3'),
        ({"method": "ia3"}, "method was lora, is ia3"),
        ({"data_digest": "c" * 64}, "data_digest was bbbbbbbbbbbb…, is cccccccccccc…"),
        ({"base_sha256": "c" * 64}, "base_sha256 was aaaaaaaaaaaa…, is cccccccccccc…"),
        ({"threads": 4, "max_steps": 9}, "max_steps was null, is 9; threads was 2, is 4"),
    ],
)
def test_another_run_is_refused_by_its_differences(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Conflict, match=message):
        require_same_run(BEGUN, msgspec.structs.replace(BEGUN, **change))


def test_a_missing_or_unreadable_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no run to resume"):
        load_identity(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(Conflict, match="cannot be resumed"):
        load_identity(tmp_path)
