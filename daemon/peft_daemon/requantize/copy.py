"""Copies of a GGUF file with other tensor types: the recipes, writing a copy, and quantizing to IQ4_NL.

A copy is written front to back, so that an interrupted one can be continued; metadata and vocabulary are copied byte by
byte. File format: ggml's docs/gguf.md. Only tensor types for which llama.cpp has fast kernels are of use.

IQ4_NL has blocks of 32 weights, each a half-precision scale and 32 indices into 16 uneven levels. Format and levels are
llama.cpp's (``ggml-common.h``, ``kvalues_iq4nl``); the ``gguf`` package reads them but does not write them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from peft_core.errors import NotFound
from peft_core.gguf import U32, U64, HeaderParser, TensorInfo, read_header
from peft_core.http_download import PartialFile

GgmlType = GGMLQuantizationType
_ALIGNMENT = 32
_NUMBERS_AT_A_TIME = 1 << 19

_MLP = ("ffn_gate", "ffn_up")
_LAYERS = (*_MLP, "ffn_down", "attn_q", "attn_k", "attn_v", "attn_output")
_EXACT = frozenset({GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.F64})
"""Tensors of these types are vectors, or a model nobody quantized, which is another trade."""

BLOCK, BYTES = 32, 18
"""Weights in a block, and the bytes it takes."""
IQ4_NL_LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)

_BORDERS = ((IQ4_NL_LEVELS[1:] + IQ4_NL_LEVELS[:-1]) / 2).astype(np.float32)
_NEAREST = np.searchsorted(_BORDERS, np.arange(-128, 128, 0.5, dtype=np.float32)).astype(np.uint8)
"""The nearest level of -128, -127.5, …; exact but for values within a quarter of a border."""
_TINY = 1e-30
"""A block whose largest weight is below this is one of zeros: its inverse scale would overflow."""
_ATTEMPTS = (0, -6, -4, -2, 2, 4, 6)
"""Added to the level that the largest weight is put on, which varies the scale: the errors of all weights decide."""


@dataclass(frozen=True)
class QuantizationRecipe:
    """Linear layers whose names have one of ``parts`` are stored as ``type``; all else is copied byte by byte."""

    id: str
    summary: str
    parts: tuple[str, ...]
    type: GgmlType

    def of(self, name: str, info: TensorInfo) -> GgmlType:
        """Return the type of a tensor in the copy: its own where recipe or shape do not fit."""
        own = GgmlType(info.type)
        kind = name.removesuffix(".weight").rpartition(".")[2]
        fits = len(info.shape) == 2 and info.shape[-1] % GGML_QUANT_SIZES[self.type][0] == 0
        return self.type if kind in self.parts and fits and own not in _EXACT else own


RECIPES = (
    QuantizationRecipe("iq4_nl", "all linear layers as IQ4_NL", _LAYERS, GgmlType.IQ4_NL),
    QuantizationRecipe(
        "iq4_nl-mlp", "the two wide layers of each block as IQ4_NL, the rest as it is", _MLP, GgmlType.IQ4_NL
    ),
    QuantizationRecipe("q4_0", "all linear layers and the output as Q4_0", (*_LAYERS, "output"), GgmlType.Q4_0),
    QuantizationRecipe("q8_0", "all linear layers and the output as Q8_0", (*_LAYERS, "output"), GgmlType.Q8_0),
)
DEFAULT_RECIPES = ("iq4_nl", "iq4_nl-mlp")
"""Recipes tried when none is named: q4_0 loses 10 % of perplexity on a 0.5B model, q8_0 gains no speed on
AVX2, but other models and processors may differ."""


def get_recipe(recipe_id: str) -> QuantizationRecipe:
    """Return the recipe with this id; raises NotFound naming all."""
    for recipe in RECIPES:
        if recipe.id == recipe_id:
            return recipe
    raise NotFound(
        f"no recipe '{recipe_id}'", fix=f"Choose of {', '.join(recipe.id for recipe in RECIPES)} with `--candidate`"
    )


@dataclass(frozen=True)
class CopyLayout:
    """A copy before it is written: its beginning, and each tensor with its type and offset in the whole file."""

    header: bytes
    tensors: tuple[tuple[TensorInfo, GgmlType, int], ...]
    bytes: int


def plan_layout(source: Path, recipe: QuantizationRecipe) -> CopyLayout:
    """Plan a copy of ``source``; raises what ``read_header`` raises."""
    header = read_header(source)
    alignment = int(header.metadata.get("general.alignment", _ALIGNMENT))
    infos, placed, at = bytearray(), [], 0
    for name, info in header.tensors.items():
        kind = recipe.of(name, info)
        encoded = name.encode()
        infos += U64.pack(len(encoded)) + encoded + U32.pack(len(info.shape))
        infos += b"".join(U64.pack(size) for size in reversed(info.shape)) + U32.pack(kind) + U64.pack(at)
        placed.append((info, kind, at))
        at += _stored_bytes(info.shape, kind)
        at += -at % alignment
    start = _up_to_tensor_infos(source) + bytes(infos)
    start += bytes(-len(start) % alignment)
    return CopyLayout(start, tuple((info, kind, len(start) + offset) for info, kind, offset in placed), len(start) + at)


def write_copy(source: Path, plan: CopyLayout, target: PartialFile, advance: Callable[[int, int], None]) -> None:
    """Write the copy, or the missing rest of it; raises OSError.

    ``advance`` is called with the bytes written and the bytes of the whole copy. ``target`` must be empty or
    hold the beginning of this very copy.
    """
    data = np.memmap(source, mode="r")
    if target.size < len(plan.header):
        target.cut(0)
        target.append(plan.header)
    done = max((at for _, _, at in plan.tensors if at <= target.size), default=len(plan.header))
    if target.size < plan.bytes:
        target.cut(done)
    for info, kind, at in plan.tensors:
        if at < target.size:
            continue
        target.append(bytes(at - target.size))
        for piece in _pieces(data, info, kind):
            target.append(piece)
            advance(target.size, plan.bytes)
    target.append(bytes(plan.bytes - target.size))
    advance(plan.bytes, plan.bytes)


def _pieces(data: npt.NDArray[np.uint8], info: TensorInfo, kind: GgmlType) -> Iterator[bytes]:
    """The bytes of one tensor in the copy, a few rows at a time."""
    own = GgmlType(info.type)
    columns, rows = info.shape[-1], prod(info.shape[:-1])
    stored = data[info.offset : info.offset + _stored_bytes(info.shape, own)]
    if kind == own:
        yield stored.tobytes()
        return
    by_row = stored.reshape(rows, -1)
    step = max(1, _NUMBERS_AT_A_TIME // columns)
    for first in range(0, rows, step):
        numbers = np.asarray(gguf.quants.dequantize(by_row[first : first + step], own), dtype=np.float32)
        packed = quantize_iq4_nl(numbers) if kind == GgmlType.IQ4_NL else gguf.quants.quantize(numbers, kind)
        yield packed.tobytes()


def _stored_bytes(shape: tuple[int, ...], kind: GgmlType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return prod(shape) // block * size


def _up_to_tensor_infos(source: Path) -> bytes:
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parser = HeaderParser(data)
        parser.position = 8 + U64.size
        for _ in range(parser.number(U64)):
            parser.string()
            parser.value(parser.number(U32))
        return data[: parser.position]


def quantize_iq4_nl(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Quantize weights of shape (rows, columns) to bytes of shape (rows, columns / 32 * 18).

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
        inverse = np.divide(
            IQ4_NL_LEVELS[0] + attempt, largest, out=np.zeros_like(largest), where=np.abs(largest) > _TINY
        )
        levels = IQ4_NL_LEVELS[_indices(blocks, inverse)]
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
