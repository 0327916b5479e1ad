"""A tiny GGUF base and an adapter of every method that an engine can serve, with random weights, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from peft_core.files import file_sha256
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines.torch.base_model import LoadedBase, Precision, load_gguf
from peft_tuning import methods
from peft_tuning.methods.base import MethodOptions
from support.tiny_models import VOCABULARY, tiny_model, write_gguf

OPTIONS: Mapping[str, tuple[str, MethodOptions]] = {
    "lora": ("lora", MethodOptions(rank=4, rslora=True)),
    "dora": ("lora", MethodOptions(rank=4, dora=True)),
    "ia3": ("ia3", MethodOptions()),
    "prompt": ("prompt", MethodOptions(virtual_tokens=3, init_text="def")),
    "prefix": ("prefix", MethodOptions(virtual_tokens=3)),
}
"""By the name of the adapter: its method and options."""


def tiny_gguf(folder: Path, family: str = "qwen2", *, context: int = 64, control: Sequence[str] = ()) -> BaseModel:
    """A base of this family that reads ``context`` tokens; ``control`` are control tokens besides its own."""
    ends = {"vocab_size": VOCABULARY + len(control), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    path = folder / f"{family}.gguf"
    write_gguf(tiny_model(family, **ends, tie_word_embeddings=False), path, context=context, control=control)
    return BaseModel(f"tiny-{family}", file_sha256(path), path)


def loaded(base: BaseModel) -> LoadedBase:
    """Its weights in memory, once more."""
    return load_gguf(base.path, Precision.FLOAT32)


def write_adapter(base: BaseModel, name: str, folder: Path, *, seed: int = 1) -> Path:
    """A PEFT folder, as tuning writes it, of an adapter that changes a lot."""
    method_id, options = OPTIONS[name]
    method = methods.get(method_id)
    model = method.apply(loaded(base), options, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=draw) * 0.3)
    folder.mkdir(parents=True)
    method.save(model, folder)
    return folder
