"""IA3, prompt and prefix adapters: a vector per layer, or virtual tokens in front of the prompt.

Served by torch only. All that matters in their config also follows from their tensors and the base, so the config is
only checked to agree. Keys that only matter in training are ignored, and an unknown key must be off. The keys are those
of PEFT 0.21.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from peft_core.errors import Conflict, InvalidInput
from peft_core.status_types import TORCH
from peft_daemon.adapters import lora_config, peft_files
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import Tensor, read_tensors, tensors_digest
from peft_daemon.adapters.validation import (
    AdapterFacts,
    BaseHeader,
    BaseModel,
    base_weight,
    check_origin,
    read_record,
    require_finite,
)

EMBEDDINGS_TENSOR = "prompt_embeddings"
"""PEFT's name of the only tensor of a prompt or prefix adapter."""
MAX_VIRTUAL_TOKENS = 1024

_ALWAYS = {"peft_type", "task_type", "peft_version", "revision", "inference_mode", "base_model_name_or_path"}
_VIRTUAL = {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
_VECTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.ia3_l")

ConfigValues = Mapping[str, Any]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class VectorMethod:
    """One method: its config keys, and the check of its tensors."""

    peft_type: str
    method: str
    known: frozenset[str]
    """Keys that are read, or that do not influence a trained adapter."""
    off: Mapping[str, str]
    """Keys that must be off, each with the reason."""
    check: Callable[[ConfigValues, Tensors, BaseHeader, BaseModel], None]

    @property
    def keys(self) -> frozenset[str]:
        """All known keys."""
        return self.known | _ALWAYS | self.off.keys()


@dataclass(frozen=True)
class VectorAdapter:
    """An adapter that passed every check."""

    kind: VectorMethod
    tensors: Tensors
    record: TrainingRecord | None
    base: BaseHeader

    def facts(self) -> AdapterFacts:
        """Return the part of the manifest that its files give."""
        modules = [match["module"] for name in self.tensors if (match := _VECTOR.fullmatch(name))]
        return AdapterFacts(
            method=self.kind.method,
            engines=(TORCH,),
            virtual_tokens=self.tensors[EMBEDDINGS_TENSOR].shape[0] if EMBEDDINGS_TENSOR in self.tensors else 0,
            targets=tuple(sorted({name.rpartition(".")[2] for name in modules})),
            modules=len(modules),
            parameters=sum(prod(tensor.shape) for tensor in self.tensors.values()),
            scalable=self.kind.peft_type == "IA3",
        )

    def digest(self, base_sha256: str) -> str:
        """Return its content digest."""
        return tensors_digest(self.kind.peft_type, self.tensors, base_sha256)


def validate_vectors(folder: Path, base: BaseModel, kind: VectorMethod) -> VectorAdapter:
    """Check the adapter of this kind in ``folder`` against ``base``; raises as ``check_adapter`` does."""
    values = lora_config.read_config((folder / peft_files.CONFIG_FILE).read_bytes())
    _refuse(values, kind)
    record = read_record(folder / peft_files.RECORD_FILE)
    header = check_origin(str(values.get("base_model_name_or_path") or ""), record, base)
    tensors = read_tensors(folder / peft_files.WEIGHTS_FILE)
    if not tensors:
        raise InvalidInput("the adapter has no tensors", why="it would change nothing", fix="Train it first")
    kind.check(values, tensors, header, base)
    for name, tensor in tensors.items():
        require_finite(name, tensor)
    return VectorAdapter(kind, tensors, record, header)


def _refuse(values: ConfigValues, kind: VectorMethod) -> None:
    lora_config.refuse_unknown(values, kind.keys)
    for key, effect in kind.off.items():
        if not lora_config.is_off(values.get(key)):
            raise InvalidInput(f"'{key}' is on in {peft_files.CONFIG_FILE}", why=effect, fix=f"Train without '{key}'")


def _check_ia3(values: ConfigValues, tensors: Tensors, header: BaseHeader, base: BaseModel) -> None:
    """Check that each vector rescales the inputs (1, inputs) or the outputs (outputs, 1) of a linear layer."""
    for name, tensor in tensors.items():
        match = _VECTOR.fullmatch(name)
        if match is None:
            raise InvalidInput(
                f"unknown tensor '{name}'",
                why="an IA3 adapter holds only 'base_model.model.….ia3_l'",
                fix="Train without additional modules",
            )
        outputs, inputs = base_weight(match["module"], header, base)
        if tensor.shape not in {(1, inputs), (outputs, 1)}:
            raise Conflict(
                f"the vector of '{match['module']}' has the shape {list(tensor.shape)}",
                why=f"in {base.id} that layer maps {inputs} to {outputs} values",
                fix="Import the adapter for the model it was trained on with `--base`",
            )
    if all((tensor.to_float32() == 1).all() for tensor in tensors.values()):
        raise InvalidInput("the adapter changes nothing", why="all its vectors are ones", fix="Train it first")


def _check_prompt(values: ConfigValues, tensors: Tensors, header: BaseHeader, base: BaseModel) -> None:
    """Check virtual tokens that are embeddings: (tokens, embedding)."""
    _refuse_encoder(header, base)
    _check_embeddings(values, tensors, header.embedding_length, base)


def _check_prefix(values: ConfigValues, tensors: Tensors, header: BaseHeader, base: BaseModel) -> None:
    """Check virtual tokens that are keys and values: (tokens, layers · 2 · key-value heads · size of a head)."""
    _refuse_encoder(header, base)
    layers, kv_heads, size = header.blocks, header.kv_heads, header.head_size
    for key, expected in (("num_layers", layers), ("num_attention_heads", kv_heads)):
        if values.get(key) != expected:
            raise Conflict(
                f"{key} is {values.get(key)!r}, in {base.id} it is {expected}",
                fix="Import the adapter for the model it was trained on with `--base`",
            )
    _check_embeddings(values, tensors, layers * 2 * kv_heads * size, base)


def _refuse_encoder(header: BaseHeader, base: BaseModel) -> None:
    if header.encoder_decoder:
        raise InvalidInput(
            "adapters with virtual tokens are not served on an encoder-decoder model",
            why=f"{base.id} has an encoder",
            fix="Tune it with `--method lora` or `--method ia3`",
        )


def _check_embeddings(values: ConfigValues, tensors: Tensors, width: int, base: BaseModel) -> None:
    if set(tensors) != {EMBEDDINGS_TENSOR}:
        unknown = sorted(set(tensors) - {EMBEDDINGS_TENSOR})
        raise InvalidInput(f"unknown tensor '{unknown[0]}'", why=f"such an adapter holds only '{EMBEDDINGS_TENSOR}'")
    shape, count = tensors[EMBEDDINGS_TENSOR].shape, values.get("num_virtual_tokens")
    if values.get("num_transformer_submodules") not in (None, 1):
        raise InvalidInput("the adapter is for an encoder and a decoder", why=f"{base.id} has a decoder only")
    if len(shape) != 2 or shape[0] != count:
        raise InvalidInput(f"'{EMBEDDINGS_TENSOR}' has the shape {list(shape)}", why=f"num_virtual_tokens is {count!r}")
    if not 1 <= shape[0] <= MAX_VIRTUAL_TOKENS:
        raise InvalidInput(f"num_virtual_tokens is {count!r}", why=f"it is a number from 1 to {MAX_VIRTUAL_TOKENS}")
    if shape[1] != width:
        raise Conflict(
            f"a virtual token has {shape[1]} numbers, in {base.id} it would have {width}",
            fix="Import the adapter for the model it was trained on with `--base`",
        )


_SAVED = {"modules_to_save": "it replaces whole modules of the base"}

VECTOR_METHODS: Mapping[str, VectorMethod] = {
    kind.peft_type: kind
    for kind in (
        VectorMethod(
            "IA3",
            "ia3",
            # The tensors show which layers are changed, and whether their inputs or outputs.
            frozenset({"target_modules", "feedforward_modules", "exclude_modules", "init_ia3_weights"}),
            _SAVED | {"fan_in_fan_out": "its weights are stored transposed"},
            _check_ia3,
        ),
        VectorMethod(
            "PROMPT_TUNING",
            "prompt",
            frozenset(
                _VIRTUAL
                | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"}
            ),
            _SAVED,
            _check_prompt,
        ),
        VectorMethod(
            "PREFIX_TUNING",
            "prefix",
            # The stored tensor is the projection's output, if there was a projection.
            frozenset(_VIRTUAL | {"encoder_hidden_size", "prefix_projection", "init_weights"}),
            _SAVED,
            _check_prefix,
        ),
    )
}
"""The methods by ``peft_type``."""
