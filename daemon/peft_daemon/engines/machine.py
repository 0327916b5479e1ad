"""What this machine is, and how fast llama.cpp computes on it, before any model is here.

The llama.cpp that will serve is measured: on the processor, or on the graphics card. It runs speed probes: model files
of zeros. A probe has a few layers of the width of a 1.5B model, with tensors of the types that a model file of its
quantization has. No kernel cares what the weights are, so they are a hole in the file, which takes no time to write. A
probe must be larger than the caches of a processor: else writing tokens would not wait for the memory, as it does with
a real model.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from peft_core.files import free_bytes
from peft_core.memory import read_memory
from peft_core.processes import find_program, run
from peft_core.processor import processor_name
from peft_core.settings import Settings
from peft_daemon.engines.base import default_threads
from peft_daemon.engines.factory import server_program
from peft_daemon.engines.speed import measure_speed
from peft_daemon.models.catalogue import FileLocation, ModelEntry, PromptFormats
from peft_daemon.models.choice import KernelSpeed, MachineFacts

KERNELS_LIMIT_S = 10.0
"""Longest time in which the kernels of a machine are measured."""
PROBE_FUNCTIONS, PROBE_ANSWER_TOKENS = 3, 16
"""A prompt as long as the first one in a new place, as a probe has a token for each character; and a line."""
GPU_QUESTION_S = 5.0
"""Longest wait for the name of the graphics card."""
CONTEXT_TOKENS = 512
_WIDTH, _HIDDEN, _HEADS, _KV_WIDTH, _KV_HEADS = 1536, 8960, 12, 256, 2
"""Shape of the layers of Qwen2.5-Coder 1.5B."""
_LAYERS = 6
"""281 million weights: 165 MB as Q4_K_M, 298 MB as Q8_0."""
_MATRICES = {
    "attn_q": (_WIDTH, _WIDTH),
    "attn_k": (_KV_WIDTH, _WIDTH),
    "attn_v": (_KV_WIDTH, _WIDTH),
    "attn_output": (_WIDTH, _WIDTH),
    "ffn_gate": (_HIDDEN, _WIDTH),
    "ffn_up": (_HIDDEN, _WIDTH),
    "ffn_down": (_WIDTH, _HIDDEN),
}
_VECTORS = {
    "attn_norm.weight": _WIDTH,
    "ffn_norm.weight": _WIDTH,
    "attn_q.bias": _WIDTH,
    "attn_k.bias": _KV_WIDTH,
    "attn_v.bias": _KV_WIDTH,
}
_RECIPES = {
    "Q4_K_M": ("Q4_K", {"attn_v": ("Q6_K", "Q4_K"), "ffn_down": ("Q6_K", "Q4_K")}),
    "Q5_0": ("Q5_0", {"attn_v": ("Q8_0", "Q8_0"), "ffn_down": ("Q6_K", "Q4_K")}),
    "Q8_0": ("Q8_0", {}),
}
"""By quantization: the type of most matrices, and those of others in even and odd layers, as llama.cpp quantizes.
Q5_0 is its Q4_K_M for models whose rows do not fit K-quants, such as Qwen2.5-Coder 0.5B."""
QUANTIZATIONS = tuple(_RECIPES)
_VOCABULARY = ("x", *(f"<0x{byte:02X}>" for byte in range(256)), "<unk>", "<s>", "</s>")
"""All logits are equal, so the first token is written again and again: it must not be one that ends an answer."""
_EXACT = "F32"
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
"""Kinds of tokens, as GGUF numbers them."""


async def measure_machine(settings: Settings, models_folder: Path, quantizations: Sequence[str]) -> MachineFacts:
    """Return what this machine is and how fast it computes with these quantizations, in 10 seconds or so.

    Those for which there was no time have no speed. Raises InvalidInput where the engine is not installed, EngineFailed
    where it cannot start.
    """
    began = time.monotonic()
    memory, gpu = read_memory(), gpu_name()
    kernels = await measure_kernels(settings, quantizations)
    program = server_program(settings)
    return MachineFacts(
        processor=processor_name(),
        threads=settings.threads or default_threads(),
        memory_bytes=memory.total,
        available_bytes=memory.available,
        disk_bytes=free_bytes(models_folder),
        gpu=gpu,
        engine=f"llama.cpp ({program})" if program else "llama.cpp",
        measured_s=time.monotonic() - began,
        kernels=kernels,
    )


def gpu_name() -> str:
    """Return the name of a graphics card that llama.cpp can use with the right build; empty if none is found."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple GPU (Metal)"
    program = find_program("nvidia-smi")
    if program is None:
        return ""
    try:
        told = run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=GPU_QUESTION_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    lines = str(told.stdout).splitlines()
    return lines[0].strip() if told.returncode == 0 and lines else ""


async def measure_kernels(settings: Settings, quantizations: Sequence[str]) -> dict[str, KernelSpeed]:
    """Measure the llama.cpp of ``settings`` with a probe of each quantization, in their order.

    Those for which there was no time are left out. Speculation is off: zeros repeat themselves more than code does.
    Raises what ``measure_speed`` raises.
    """
    settings = msgspec.structs.replace(settings, engine="llamacpp", speculation="off", slots=1)
    measured = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KERNELS_LIMIT_S):
            with tempfile.TemporaryDirectory(prefix="pd-") as folder:
                for each in quantizations:
                    probe = write_probe(Path(folder, f"{each}.gguf"), each)
                    speed = await measure_speed(
                        settings,
                        probe.entry,
                        probe.path,
                        functions=PROBE_FUNCTIONS,
                        answer_tokens=PROBE_ANSWER_TOKENS,
                    )
                    if speed.reading and speed.writing:
                        measured[each] = KernelSpeed(speed.reading * probe.weights, speed.writing * probe.bytes)
    return measured


@dataclass(frozen=True)
class SpeedProbe:
    """A probe's file, and what a token costs with it."""

    path: Path
    quantization: str
    weights: int
    """Of its layers."""
    bytes: int
    """Of these weights."""

    @property
    def entry(self) -> ModelEntry:
        """The probe as a model of a catalogue, as engines take models."""
        return ModelEntry(
            id=f"probe-{self.quantization.lower()}",
            family="qwen2",
            licence="none",
            file=self.path.name,
            bytes=self.path.stat().st_size,
            sha256="0" * 64,
            quantization=self.quantization,
            context_tokens=CONTEXT_TOKENS,
            prompt_formats=PromptFormats(fill="qwen-fim-v1", intent="instruct-v1"),
            sources=(FileLocation(str(self.path)),),
        )


def write_probe(path: Path, quantization: str) -> SpeedProbe:
    """Write a probe of one of ``QUANTIZATIONS``; raises OSError where it cannot be written."""
    import gguf  # noqa: PLC0415  (numpy: 0.1 s)
    import numpy as np  # noqa: PLC0415

    writer = gguf.GGUFWriter(path, "qwen2")
    _add_facts(writer)
    weights = size = end = 0
    for name, shape, type_name in _tensors(quantization):
        kind = gguf.GGMLQuantizationType[type_name]
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        nbytes = prod(shape) // block * block_bytes
        writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
        end += gguf.GGUFWriter.ggml_pad(nbytes, writer.data_alignment)
        if type_name != _EXACT:
            weights, size = weights + prod(shape), size + nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("rb+") as file:
        header = file.seek(0, 2)
        file.truncate(gguf.GGUFWriter.ggml_pad(header, writer.data_alignment) + end)
    return SpeedProbe(path, quantization, weights, size)


def _add_facts(writer: Any) -> None:
    writer.add_block_count(_LAYERS)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_VOCABULARY)
    writer.add_token_types([_NORMAL, *[_BYTE] * 256, _UNKNOWN, _CONTROL, _CONTROL])
    writer.add_token_scores([0.0] * len(_VOCABULARY))
    writer.add_unk_token_id(len(_VOCABULARY) - 3)
    writer.add_bos_token_id(len(_VOCABULARY) - 2)
    writer.add_eos_token_id(len(_VOCABULARY) - 1)


def _tensors(quantization: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and ggml type of each tensor; the layers' matrices are the ones that are not exact."""
    most, others = _RECIPES[quantization]
    yield "token_embd.weight", (len(_VOCABULARY), _WIDTH), _EXACT
    yield "output.weight", (len(_VOCABULARY), _WIDTH), _EXACT
    yield "output_norm.weight", (_WIDTH,), _EXACT
    for number in range(_LAYERS):
        for name, shape in _MATRICES.items():
            yield f"blk.{number}.{name}.weight", shape, others[name][number % 2] if name in others else most
        for name, length in _VECTORS.items():
            yield f"blk.{number}.{name}", (length,), _EXACT
