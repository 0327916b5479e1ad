"""The digest names what an adapter computes: nothing else changes it, and everything of that does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_core.errors import InvalidInput
from peft_daemon.adapters.lora import LoraAdapter, LoraModule, combine_loras, lora_digest, validate_lora
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import Tensor
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import TinyModel, lora, peft_config, peft_tensors, write_peft

BASE = "b" * 64
names = st.text(st.sampled_from("abc._"), min_size=1, max_size=6)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tensors(draw: st.DrawFn, rows: int, columns: int) -> Tensor:
    dtype = draw(st.sampled_from(["F32", "F16", "BF16"]))
    size = rows * columns * (4 if dtype == "F32" else 2)
    return Tensor(dtype, (rows, columns), draw(st.binary(min_size=size, max_size=size)))


@st.composite
def modules(draw: st.DrawFn) -> LoraModule:
    rank, inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    scale = draw(st.floats(0.001, 100))
    a, b = draw(tensors(rank, inputs)), draw(tensors(outputs, rank))
    return LoraModule(draw(names), "blk.0.x.weight", scale, a, b)


adapters = st.lists(modules(), min_size=1, max_size=4, unique_by=lambda module: module.name)


@given(adapter=adapters, data=st.data())
def test_the_order_of_modules_does_not_matter(adapter: list[LoraModule], data: st.DataObject) -> None:
    assert lora_digest(data.draw(st.permutations(adapter)), BASE) == lora_digest(adapter, BASE)


@given(one=adapters, other=adapters)
def test_only_equal_adapters_have_equal_digests(one: list[LoraModule], other: list[LoraModule]) -> None:
    same = {m.name: m for m in one} == {m.name: m for m in other}
    assert (lora_digest(one, BASE) == lora_digest(other, BASE)) == same


@given(adapter=adapters, data=st.data())
def test_any_changed_byte_gives_another_digest(adapter: list[LoraModule], data: st.DataObject) -> None:
    module = data.draw(st.sampled_from(adapter))
    changed = bytearray(module.b.data)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    other = [replace(m, b=replace(m.b, data=bytes(changed))) if m is module else m for m in adapter]
    assert lora_digest(other, BASE) != lora_digest(adapter, BASE)


@given(adapter=adapters, factor=st.floats(1.001, 3))
def test_another_scale_gives_another_digest(adapter: list[LoraModule], factor: float) -> None:
    other = [replace(adapter[0], scale=adapter[0].scale * factor), *adapter[1:]]
    assert lora_digest(other, BASE) != lora_digest(adapter, BASE)


@given(adapter=adapters)
def test_another_base_gives_another_digest(adapter: list[LoraModule]) -> None:
    assert lora_digest(adapter, "c" * 64) != lora_digest(adapter, BASE)


def test_bytes_cannot_move_from_one_factor_to_the_other() -> None:
    def module(rows_a: int, rows_b: int) -> LoraModule:
        a, b = (Tensor("F16", (rows, 1), bytes(2 * rows)) for rows in (rows_a, rows_b))
        return LoraModule("m", "w", 1.0, a, b)

    assert lora_digest([module(1, 3)], BASE) != lora_digest([module(3, 1)], BASE)


def raw_safetensors(path: Path, order: list[str], metadata: dict[str, str]) -> None:
    """The fitting tensors laid out in the file in this order (the library writes only one order)."""
    wanted, header, data = peft_tensors(lora()), {"__metadata__": metadata}, b""
    for name in order:
        block = wanted[name].tobytes()
        shape, end = list(wanted[name].shape), len(data) + len(block)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), end]}  # type: ignore[assignment]
        data += block
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@shared
@given(
    order=st.permutations(sorted(peft_tensors(lora()))),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    dropout=st.floats(0, 0.5),
    version=st.text(max_size=8),
)
def test_the_files_layout_metadata_and_training_settings_do_not_matter(
    tmp_path: Path, base: BaseModel, order: list[str], metadata: dict[str, str], dropout: float, version: str
) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    plain = registry.import_(write_peft(tmp_path / "plain"), name="plain", base=base)
    other = write_peft(
        tmp_path / "other", config=peft_config(lora_dropout=dropout, peft_version=version, inference_mode=False)
    )
    raw_safetensors(other / "adapter_model.safetensors", order, metadata)
    assert registry.import_(other, name="other", base=base).digest == plain.digest


def test_alpha_and_rank_stabilization_matter(tmp_path: Path, base: BaseModel) -> None:
    registry = AdapterRegistry(tmp_path / "registry")
    configs = [peft_config(), peft_config(lora_alpha=9), peft_config(use_rslora=True)]
    digests = {
        registry.import_(write_peft(tmp_path / str(i), config=config), name="x", base=base).digest
        for i, config in enumerate(configs)
    }
    assert len(digests) == 3


# The sum of LoRAs changes a layer by exactly what the parts change it, weighted.

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
