"""What a GGUF file says of its model, checked as far as its header allows: for models that users add.

Which prompts the model understands is decided in ``completion.detection``; whether an engine can load the file shows
only when one does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.files import format_bytes
from peft_core.gguf import GgufHeader, read_header

UNKNOWN_LICENCE = "unknown"
MAX_ID_CHARACTERS = 80


@dataclass(frozen=True)
class ModelFacts:
    """What the header of a model's file says."""

    name: str
    """As its makers call it; the file's own name where the header has none."""
    family: str
    quantization: str
    """As llama.cpp names it: ``Q4_K_M``, ``F16``."""
    licence: str
    context_tokens: int
    bytes: int


def read_facts(file: Path) -> ModelFacts:
    """Read the header of ``file``, and check that the file is as long as it says.

    Raises NotFound, and InvalidInput for a file that is not GGUF, is cut short, is a part of a model (an adapter, a
    vocabulary, one of several files) or has no context length.
    """
    if file.is_dir():
        raise InvalidInput(f"{file} is a folder", fix="Name a file that ends in .gguf")
    if not file.exists():
        raise NotFound(
            f"no model file {file}", fix="Check the path; `peft-daemon models found` shows what other programs have"
        )
    header = read_header(file)
    metadata = header.metadata
    kind = str(metadata.get("general.type", "model"))
    if kind != "model":
        raise InvalidInput(f"{file} is no model", why=f"it is of type '{kind}'", fix="Name the file of a whole model")
    if int(metadata.get("split.count", 1) or 1) > 1:
        raise InvalidInput(
            f"{file} is one of {metadata['split.count']} parts of a model",
            fix="Join them with `llama-gguf-split --merge`, and add that file",
        )
    if not header.architecture or not header.tensors:
        raise InvalidInput(f"{file} holds no model", why="its header names no architecture or no weights")
    size, needed = file.stat().st_size, _end_of_weights(file, header)
    if size < needed:
        raise InvalidInput(
            f"{file} is cut short",
            why=f"its header promises {format_bytes(needed)}, it has {format_bytes(size)}",
            fix="Fetch it again",
        )
    return ModelFacts(
        name=str(metadata.get("general.name") or file.stem),
        family=header.architecture,
        quantization=_quantization(header),
        licence=str(metadata.get("general.license") or UNKNOWN_LICENCE),
        context_tokens=header.hyperparameter("context_length"),
        bytes=size,
    )


def require_memory(bytes_: int, available: int) -> None:
    """Raise Conflict if a model of so many bytes is larger than the memory of this machine."""
    if bytes_ > available:
        raise Conflict(
            "the model is larger than this machine's memory",
            why=f"{format_bytes(bytes_)} of weights, {format_bytes(available)} of memory",
            fix="Choose a smaller one, or a stronger quantization of it (Q4_K_M, Q4_0)",
        )


def model_id(name: str) -> str:
    """Return an id for a model of this name: lower case, with only what a folder's name may have."""
    plain = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[:MAX_ID_CHARACTERS].rstrip("-._")
    return plain or "model"


def _end_of_weights(file: Path, header: GgufHeader) -> int:
    """Return how many bytes the file must have at least."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415  (numpy: 0.1 s)

    end = 0
    for name, tensor in header.tensors.items():
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except (ValueError, KeyError):
            raise InvalidInput(
                f"{file} has weights of an unknown type",
                why=f"tensor '{name}' is of ggml type {tensor.type}",
                fix="Choose another quantization of the model",
            ) from None
        end = max(end, tensor.offset + prod(tensor.shape) // block * block_bytes)
    return end


def _quantization(header: GgufHeader) -> str:
    from gguf import GGMLQuantizationType, LlamaFileType  # noqa: PLC0415

    number = header.metadata.get("general.file_type")
    if isinstance(number, int):
        try:
            return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        except ValueError:
            pass
    largest = max(header.tensors.values(), key=lambda tensor: prod(tensor.shape))
    return GGMLQuantizationType(largest.type).name
