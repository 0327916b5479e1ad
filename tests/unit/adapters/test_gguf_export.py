"""The exported file says what the adapter says: names, shapes, numbers and scale, by formulas of its own."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.adapters.lora import export_lora_gguf, interleave_halves, validate_lora
from peft_daemon.adapters.peft_files import round_to_float16
from peft_daemon.adapters.validation import BaseModel
from support.synthetic_adapter import HEAD, HEADS, KV_HEADS, Array, TinyModel, lora, peft_config, write_peft

Q, K, UP = (f"model.layers.1.{kind}" for kind in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"))


def exported(folder: Path, base: BaseModel) -> tuple[dict[str, Any], dict[str, Array]]:
    """Metadata and tensors of the file made from a PEFT folder, read by the reference reader."""
    export_lora_gguf(validate_lora(folder, base), folder / "out.gguf")
    reader = gguf.GGUFReader(folder / "out.gguf")
    return (
        {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")},
        {tensor.name: np.array(tensor.data) for tensor in reader.tensors},
    )


def test_it_is_a_lora_adapter_of_the_bases_architecture(tmp_path: Path, base: BaseModel) -> None:
    metadata, _ = exported(write_peft(tmp_path), base)
    assert metadata == {
        "general.architecture": "qwen2",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }


def test_it_names_its_base_and_its_licence(tmp_path: Path, base: BaseModel) -> None:
    config = {**peft_config(4), "base_model_name_or_path": "owner/base"}
    record = {"base": base.id, "base_sha256": base.sha256, "licence": "MIT"}
    metadata, _ = exported(write_peft(tmp_path, config=config, record=record), base)
    assert metadata["general.base_model.0.name"] == "owner/base"
    assert metadata["general.license"] == "MIT"


def test_factors_are_stored_unchanged_under_ggufs_names(tmp_path: Path, base: BaseModel) -> None:
    modules = lora(modules=(Q, UP, "lm_head"))
    _, tensors = exported(write_peft(tmp_path, modules), base)
    expected = {
        f"{weight}.weight.lora_{letter}": factor
        for weight, pair in zip(["blk.1.attn_q", "blk.1.ffn_up", "output"], modules.values(), strict=True)
        for letter, factor in zip("ab", pair, strict=True)
    }
    assert tensors.keys() == expected.keys()
    for name, factor in expected.items():
        np.testing.assert_array_equal(tensors[name], factor)


def effective(metadata: dict[str, Any], tensors: dict[str, Array], weight: str) -> Array:
    """What llama.cpp adds to a weight: alpha / rank * lora_b @ lora_a."""
    a, b = tensors[f"{weight}.lora_a"], tensors[f"{weight}.lora_b"]
    return metadata["adapter.lora.alpha"] / a.shape[0] * (b.astype(np.float64) @ a.astype(np.float64))


@pytest.mark.parametrize("rslora", [False, True])
def test_the_scale_is_the_one_peft_applies(tmp_path: Path, base: BaseModel, rslora: bool) -> None:
    modules = lora(rank=4, modules=(UP,))
    folder = write_peft(tmp_path, modules, config=peft_config(lora_alpha=6, use_rslora=rslora))
    a, b = modules[UP]
    expected = 6 / (sqrt(4) if rslora else 4) * (b @ a)
    np.testing.assert_allclose(
        effective(*exported(folder, base), "blk.1.ffn_up.weight"), expected, rtol=1e-5, atol=1e-6
    )


def test_modules_with_their_own_rank_and_alpha_keep_their_own_scale(tmp_path: Path, base: BaseModel) -> None:
    modules = lora(rank=4, modules=(Q, UP)) | lora(rank=2, modules=(K,))
    config = peft_config(lora_alpha=6, use_rslora=True, rank_pattern={"k_proj": 2}, alpha_pattern={"up_proj": 20})
    metadata, tensors = exported(write_peft(tmp_path, modules, config=config), base)
    for module, weight, scale in [
        (Q, "attn_q", 6 / sqrt(4)),
        (K, "attn_k", 6 / sqrt(2)),
        (UP, "ffn_up", 20 / sqrt(4)),
    ]:
        a, b = modules[module]
        np.testing.assert_allclose(
            effective(metadata, tensors, f"blk.1.{weight}.weight"), scale * (b @ a), rtol=1e-5, atol=1e-6
        )


def test_llamas_query_and_key_rows_follow_its_rotary_layout(tmp_path: Path) -> None:
    base = TinyModel.random("llama").write(tmp_path / "llama.gguf")
    modules = lora(modules=(Q, K, UP))
    _, tensors = exported(write_peft(tmp_path / "peft", modules), base)
    for module, name, heads in [(Q, "attn_q", HEADS), (K, "attn_k", KV_HEADS)]:
        original, stored = modules[module][1], tensors[f"blk.1.{name}.weight.lora_b"]
        for head in range(heads):
            for pair in range(HEAD // 2):
                first, second = head * HEAD + pair, head * HEAD + pair + HEAD // 2
                np.testing.assert_array_equal(stored[head * HEAD + 2 * pair], original[first])
                np.testing.assert_array_equal(stored[head * HEAD + 2 * pair + 1], original[second])
    np.testing.assert_array_equal(tensors["blk.1.ffn_up.weight.lora_b"], modules[UP][1])


@given(heads=st.integers(1, 4), half=st.integers(1, 8), columns=st.integers(1, 3))
def test_reordering_rows_loses_none(heads: int, half: int, columns: int) -> None:
    rows = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(-1, columns)
    assert sorted(map(tuple, interleave_halves(rows, heads))) == sorted(map(tuple, rows))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shorter_floats_are_stored_exactly_and_float16_as_it_is(tmp_path: Path, base: BaseModel, dtype: str) -> None:
    a, b = lora(modules=(UP,))[UP]
    if dtype == "float16":
        short = [factor.astype("<f2") for factor in (a, b)]
        wide = [factor.astype(np.float32) for factor in short]
    else:  # the upper half of a float32, by definition
        short = [(factor.view("<u4") >> 16).astype("<u2") for factor in (a, b)]
        wide = [(factor.view("<u4") & 0xFFFF0000).view("<f4") for factor in (a, b)]
    folder = write_peft(tmp_path, {UP: (a, b)})
    specs = {
        f"base_model.model.{UP}.lora_{letter}.weight": safetensors.TensorSpec(
            dtype=dtype, shape=list(x.shape), data_ptr=x.ctypes.data, data_len=x.nbytes
        )
        for letter, x in zip("AB", short, strict=True)
    }
    safetensors.serialize_file(specs, folder / "adapter_model.safetensors")
    _, tensors = exported(folder, base)
    for letter, factor in zip("ab", wide, strict=True):
        stored = tensors[f"blk.1.ffn_up.weight.lora_{letter}"]
        np.testing.assert_array_equal(stored, factor)
        assert stored.dtype == (np.float16 if dtype == "float16" else np.float32)


def test_float16_with_another_scale_folded_in_is_widened(tmp_path: Path, base: BaseModel) -> None:
    modules = lora(modules=(Q, UP))
    config = peft_config(rank=4, alpha_pattern={"up_proj": 12}, target_modules=["q_proj", "up_proj"])
    folder = write_peft(tmp_path, modules, config=config)
    round_to_float16(folder)
    _, tensors = exported(folder, base)
    types = {name: array.dtype for name, array in tensors.items()}
    assert {name.split(".")[2] for name, kind in types.items() if kind == np.float32} in ({"ffn_up"}, {"attn_q"})
    assert len([kind for kind in types.values() if kind == np.float16]) == 2


def test_the_same_adapter_gives_the_same_file(tmp_path: Path, base: BaseModel) -> None:
    files = []
    for i in range(2):
        folder = write_peft(tmp_path / str(i))
        export_lora_gguf(validate_lora(folder, base), folder / "out.gguf")
        files.append((folder / "out.gguf").read_bytes())
    assert files[0] == files[1]
