"""The digest names what an adapter computes: nothing else changes it, and everything of that does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_daemon.adapters.lora import LoraModule, lora_digest
from peft_daemon.adapters.peft_files import Tensor
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import lora, peft_config, peft_tensors, write_peft

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
