"""The sum of LoRAs changes a layer by exactly what the parts change it, weighted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peft_core.errors import InvalidInput
from peft_daemon.adapters.lora import LoraAdapter, combine_loras, validate_lora
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import TinyModel, lora, peft_config, write_peft

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return TinyModel.random().write(tmp_path / "base.gguf")


def update(adapter: LoraAdapter, name: str) -> np.ndarray:
    """What it adds to the weight of a module; 0 where it does not change it."""
    found = {module.name: module for module in adapter.modules}.get(name)
    return np.float32(0) if found is None else found.scale * found.b.to_float32() @ found.a.to_float32()


def test_every_module_changes_by_the_weighted_sum(base: BaseModel, tmp_path: Path) -> None:
    one = validate_lora(write_peft(tmp_path / "one", lora(4, (Q, V), seed=1)), base)
    other_config = peft_config(2, lora_alpha=6, use_rslora=True, target_modules=["q_proj"])
    other = validate_lora(write_peft(tmp_path / "other", lora(2, (Q,), seed=9), config=other_config), base)
    (tmp_path / "sum").mkdir()
    combine_loras([(one, 1.0), (other, -0.5)], TrainingRecord(licence="MIT"), tmp_path / "sum")
    both = validate_lora(tmp_path / "sum", base)
    assert {module.rank for module in both.modules} == {6}
    assert both.record is not None and both.record.licence == "MIT"
    for name in (Q, V):
        wanted = update(one, name) - 0.5 * update(other, name)
        np.testing.assert_allclose(update(both, name), wanted, rtol=1e-5, atol=1e-6)
    assert both.has_gguf_form


def test_a_dora_is_refused(base: BaseModel, tmp_path: Path) -> None:
    plain = validate_lora(write_peft(tmp_path / "one", lora(4, (Q,))), base)
    dora = LoraAdapter(plain.modules, _with_dora(plain), None, plain.base)
    with pytest.raises(InvalidInput, match="DoRA"):
        combine_loras([(plain, 1.0), (dora, 1.0)], TrainingRecord(), tmp_path)


def _with_dora(adapter: LoraAdapter):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    return replace(adapter.config, dora=True)
