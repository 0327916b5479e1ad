"""Writes IQ4_NL: blocks of 32 weights, each a half-precision scale and 32 indices into 16 uneven levels.

The format and its levels are llama.cpp's (``ggml-common.h``, ``kvalues_iq4nl``); the ``gguf`` package reads it but
does not write it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK, BYTES = 32, 18
"""Weights in a block, and the bytes it takes."""
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)

_BORDERS = ((LEVELS[1:] + LEVELS[:-1]) / 2).astype(np.float32)
_NEAREST = np.searchsorted(_BORDERS, np.arange(-128, 128, 0.5, dtype=np.float32)).astype(np.uint8)
"""The nearest level of -128, -127.5, …; exact but for values within a quarter of a border."""
_TINY = 1e-30
"""A block whose largest weight is below this is one of zeros: its inverse scale would overflow."""
_ATTEMPTS = (0, -6, -4, -2, 2, 4, 6)
"""Added to the level that the largest weight is put on, which varies the scale: the errors of all weights decide."""


def quantize(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Rows of weights, (rows, columns), as rows of bytes, (rows, columns / 32 * 18).

    Each block gets the scale, of a few, whose squared error is smallest, errors weighing as the squares of the weights.
    Raises ValueError when the columns are no multiple of 32.
    """
    rows, columns = weights.shape
    if columns % BLOCK:
        raise ValueError(f"{columns} columns are no multiple of {BLOCK}")
    blocks = np.ascontiguousarray(weights, dtype=np.float32).reshape(-1, BLOCK)
    squares = blocks * blocks
    at = np.abs(blocks).argmax(axis=1)
    largest = blocks[np.arange(len(blocks)), at]
    best_gain = np.full(len(blocks), -1.0, dtype=np.float32)
    best_scale = np.zeros(len(blocks), dtype=np.float32)
    for attempt in _ATTEMPTS:
        inverse = np.divide(LEVELS[0] + attempt, largest, out=np.zeros_like(largest), where=np.abs(largest) > _TINY)
        levels = LEVELS[_indices(blocks, inverse)]
        product = np.einsum("ij,ij,ij->i", squares, levels, blocks)
        norm = np.einsum("ij,ij,ij->i", squares, levels, levels)
        scale = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
        gain = scale * product  # by how much the best scale for these levels lowers the error
        better = gain > best_gain
        best_gain[better], best_scale[better] = gain[better], scale[better]
    stored = best_scale.astype(np.float16)
    scale = stored.astype(np.float32)
    indices = _indices(blocks, np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0))
    result = np.empty((len(blocks), BYTES), dtype=np.uint8)
    result[:, :2] = stored.view(np.uint8).reshape(-1, 2)
    result[:, 2:] = indices[:, : BLOCK // 2] | indices[:, BLOCK // 2 :] << 4
    return result.reshape(rows, columns // BLOCK * BYTES)


def _indices(blocks: npt.NDArray[np.float32], inverse: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The nearest level of every weight times its block's inverse scale."""
    halves = np.rint(blocks * (2 * inverse[:, None])) + 256
    nearest: npt.NDArray[np.uint8] = _NEAREST[np.clip(halves, 0, len(_NEAREST) - 1).astype(np.int16)]
    return nearest
