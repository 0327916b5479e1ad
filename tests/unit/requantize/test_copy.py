"""A copy is its original but for the tensors the recipe names, wherever its writing was interrupted."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from peft_core.errors import NotFound
from peft_core.http_download import PartialFile
from peft_daemon.requantize.copy import (
    IQ4_NL_LEVELS,
    RECIPES,
    QuantizationRecipe,
    get_recipe,
    plan_layout,
    quantize_iq4_nl,
    write_copy,
)
from support.small_gguf import TYPES, small_gguf

MLP = get_recipe("iq4_nl-mlp")


def _nothing(done: int, of: int) -> None:
    pass


def _copy(source: Path, target: Path, recipe: QuantizationRecipe) -> bytes:
    with PartialFile(target) as file:
        write_copy(source, plan_layout(source, recipe), file, _nothing)
    return target.read_bytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_gguf(tmp_path_factory.mktemp("small") / "model.gguf")


@pytest.fixture(scope="module")
def whole(source: Path) -> bytes:
    return _copy(source, source.parent / "whole.copy", MLP)


def test_named_tensors_change_their_type_and_all_else_stays(source: Path, whole: bytes) -> None:
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(source.parent / "whole.copy")
    assert [tensor.name for tensor in after.tensors] == list(TYPES)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        if old.name in {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"}:
            assert new.tensor_type == gguf.GGMLQuantizationType.IQ4_NL
            weights = gguf.quants.dequantize(old.data, old.tensor_type)
            error = gguf.quants.dequantize(new.data, new.tensor_type) - weights
            assert 0 < np.square(error).mean() < 0.02 * np.square(weights).mean()
        else:
            assert new.tensor_type == old.tensor_type
            assert np.array_equal(new.data, old.data)
    tokens = "tokenizer.ggml.tokens"
    assert after.fields[tokens].contents() == before.fields[tokens].contents()
    assert after.fields.keys() == before.fields.keys()


def test_its_size_is_known_beforehand(source: Path, whole: bytes) -> None:
    assert plan_layout(source, MLP).bytes == len(whole)


@given(data=st.data())
def test_a_copy_interrupted_anywhere_ends_with_the_same_bytes(source: Path, whole: bytes, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(whole)))
    target = source.parent / "interrupted.copy"
    target.write_bytes(whole[:kept])
    assert _copy(source, target, MLP) == whole


def test_progress_ends_with_all_bytes(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    plan = plan_layout(source, MLP)
    with PartialFile(tmp_path / "told.copy") as file:
        write_copy(source, plan, file, lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (plan.bytes, plan.bytes)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.id)
def test_no_recipe_touches_norms_or_the_embedding(recipe: QuantizationRecipe, source: Path) -> None:
    from peft_core.gguf import read_header

    tensors = read_header(source).tensors
    for name in ("token_embd.weight", "blk.0.attn_norm.weight"):
        assert recipe.of(name, tensors[name]) == TYPES[name]
    assert any(recipe.of(name, info) != info.type for name, info in tensors.items())


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        get_recipe("q3")
    assert "iq4_nl-mlp" in caught.value.fix


# The quantizer writes what llama.cpp's format says, checked with the ``gguf`` package's reader.

IQ4_NL, Q4_0 = gguf.GGMLQuantizationType.IQ4_NL, gguf.GGMLQuantizationType.Q4_0


def _error(weights: np.ndarray, kind: gguf.GGMLQuantizationType) -> float:
    packed = quantize_iq4_nl(weights) if kind == IQ4_NL else gguf.quants.quantize(weights, kind)
    return float(np.square(gguf.quants.dequantize(packed, kind) - weights).sum())


def test_weights_that_are_levels_come_back_as_they_were() -> None:
    scales = np.array([[0.5], [0.25], [-2.0]], dtype=np.float32)
    weights = np.tile(IQ4_NL_LEVELS, 2)[None, :] * scales
    assert np.array_equal(gguf.quants.dequantize(quantize_iq4_nl(weights), IQ4_NL), weights)


def test_it_loses_less_than_q4_0_on_weights_as_models_have_them() -> None:
    weights = np.random.default_rng(1).normal(0, 0.02, (64, 896)).astype(np.float32)
    assert _error(weights, IQ4_NL) < 0.85 * _error(weights, Q4_0)


@settings(deadline=None)
@given(arrays.arrays(np.float32, (2, 64), elements=st.floats(-100, 100, width=32)))
def test_no_weight_is_off_by_more_than_a_sixth_of_its_blocks_largest(weights: np.ndarray) -> None:
    back = gguf.quants.dequantize(quantize_iq4_nl(weights), IQ4_NL)
    largest = np.abs(weights.reshape(-1, 32)).max(axis=1, keepdims=True)
    assert np.all(np.abs(back - weights).reshape(-1, 32) <= largest / 6 + 1e-5)


def test_zeros_stay_zeros() -> None:
    packed = quantize_iq4_nl(np.zeros((1, 32), dtype=np.float32))
    assert not gguf.quants.dequantize(packed, IQ4_NL).any()


def test_a_width_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="33 columns"):
        quantize_iq4_nl(np.zeros((1, 33), dtype=np.float32))
