"""Writes a copy of a GGUF file with other tensor types, front to back: an interrupted copy can be gone on with.

Metadata and vocabulary are taken over byte by byte. Format: ggml's docs/gguf.md.
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

from peft_core.gguf.header import U32, U64, Parser, TensorInfo, read_header
from peft_core.http_download import PartialFile
from peft_daemon.optimizing import iq4_nl
from peft_daemon.optimizing.recipes import Recipe, Type

Advance = Callable[[int, int], None]
"""Told of the bytes written, and of those there will be."""

_ALIGNMENT = 32
_NUMBERS_AT_A_TIME = 1 << 19


@dataclass(frozen=True)
class Layout:
    """A copy before it is written: its beginning, and each tensor with its type and offset in the whole file."""

    header: bytes
    tensors: tuple[tuple[TensorInfo, Type, int], ...]
    bytes: int


def layout(source: Path, recipe: Recipe) -> Layout:
    """What a copy of ``source`` looks like; raises what ``read_header`` raises."""
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
    return Layout(start, tuple((info, kind, len(start) + offset) for info, kind, offset in placed), len(start) + at)


def write(source: Path, plan: Layout, target: PartialFile, advance: Advance) -> None:
    """Write the copy, or what is missing of it; raises OSError.

    ``target`` must be empty or hold the beginning of this very copy.
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


def _pieces(data: npt.NDArray[np.uint8], info: TensorInfo, kind: Type) -> Iterator[bytes]:
    """The bytes of one tensor in the copy, a few rows at a time."""
    own = Type(info.type)
    columns, rows = info.shape[-1], prod(info.shape[:-1])
    stored = data[info.offset : info.offset + _stored_bytes(info.shape, own)]
    if kind == own:
        yield stored.tobytes()
        return
    by_row = stored.reshape(rows, -1)
    step = max(1, _NUMBERS_AT_A_TIME // columns)
    for first in range(0, rows, step):
        numbers = np.asarray(gguf.quants.dequantize(by_row[first : first + step], own), dtype=np.float32)
        packed = iq4_nl.quantize(numbers) if kind == Type.IQ4_NL else gguf.quants.quantize(numbers, kind)
        yield packed.tobytes()


def _stored_bytes(shape: tuple[int, ...], kind: Type) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return prod(shape) // block * size


def _up_to_tensor_infos(source: Path) -> bytes:
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parser = Parser(data)
        parser.position = 8 + U64.size
        for _ in range(parser.number(U64)):
            parser.string()
            parser.value(parser.number(U32))
        return data[: parser.position]
