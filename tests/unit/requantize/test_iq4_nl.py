"""The quantizer writes what llama.cpp's format says, checked with the ``gguf`` package's reader."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from peft_daemon.requantize.copy import IQ4_NL_LEVELS, quantize_iq4_nl

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
