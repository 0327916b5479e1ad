"""A tiny base model and tiny LoRA adapters made from random numbers: real file formats, no training, milliseconds.

The base is complete (weights and a byte vocabulary), so llama.cpp serves it. Weights live here in Hugging Face's
layout; writing them as GGUF reorders rows for ``llama`` by the definition of rotary embedding, independently of the
product's code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from peft_daemon.adapters.validation import BaseModel

Array = NDArray[np.float32]

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, HEAD = 2, 64, 96, 4, 2, 16
SHAPES = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mlp.gate_proj": (FEED_FORWARD, HIDDEN),
    "mlp.up_proj": (FEED_FORWARD, HIDDEN),
    "mlp.down_proj": (HIDDEN, FEED_FORWARD),
}
GGUF_NAMES = dict(
    zip(SHAPES, ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"], strict=True)
)
VOCABULARY = 130
"""ASCII, one merged pair (llama.cpp wants at least one), and an end-of-text token."""


@dataclass(frozen=True)
class TinyModel:
    """A random transformer; ``weights`` by Hugging Face module name, shaped (outputs, inputs)."""

    architecture: str
    weights: Mapping[str, Array]

    @classmethod
    def random(cls, architecture: str = "qwen2", seed: int = 0) -> TinyModel:
        rng = np.random.default_rng(seed)
        shapes = {
            f"model.layers.{layer}.{kind}": shape for layer in range(LAYERS) for kind, shape in SHAPES.items()
        } | {"lm_head": (VOCABULARY, HIDDEN), "model.embed_tokens": (VOCABULARY, HIDDEN)}
        return cls(
            architecture,
            {
                name: (rng.normal(size=shape) * (1.5 / np.sqrt(shape[1]))).astype(np.float32)
                for name, shape in shapes.items()
            },
        )

    def with_deltas(self, deltas: Mapping[str, Array]) -> TinyModel:
        """The same model with a matrix added to some of its weights."""
        return TinyModel(
            self.architecture, {name: w + deltas[name] if name in deltas else w for name, w in self.weights.items()}
        )

    def write(
        self,
        path: Path,
        *,
        basename: str = "Tiny Coder",
        pretokenizer: str = "default",
        context_tokens: int = 512,
        control: Sequence[str] = (),
    ) -> BaseModel:
        """Write the model as a GGUF file that llama.cpp serves; with the pretokenizer ``qwen2`` torch does, too.

        ``control`` are control tokens besides the end of the text, in place of the first bytes, which no code has.
        """
        writer = gguf.GGUFWriter(path, self.architecture)
        writer.add_type("model")
        writer.add_string("general.basename", basename)
        writer.add_block_count(LAYERS)
        writer.add_context_length(context_tokens)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(HEAD)
        writer.add_layer_norm_rms_eps(1e-6)
        _add_vocabulary(writer, pretokenizer, control)
        writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
        writer.add_tensor("token_embd.weight", self.weights["model.embed_tokens"])
        writer.add_tensor("output.weight", self.weights["lm_head"])
        for layer in range(LAYERS):
            for norm in ("attn_norm", "ffn_norm"):
                writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(HIDDEN, np.float32))
            for kind in SHAPES:
                weight = self.weights[f"model.layers.{layer}.{kind}"]
                writer.add_tensor(f"blk.{layer}.{GGUF_NAMES[kind]}.weight", self._gguf_rows(kind, weight))
            if self.architecture == "qwen2":
                for kind in ("attn_q", "attn_k", "attn_v"):
                    rows = HEADS * HEAD if kind == "attn_q" else KV_HEADS * HEAD
                    writer.add_tensor(f"blk.{layer}.{kind}.bias", np.zeros(rows, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return BaseModel("tiny", hashlib.sha256(path.read_bytes()).hexdigest(), path)

    def _gguf_rows(self, kind: str, weight: Array) -> Array:
        if self.architecture != "llama" or kind not in {"self_attn.q_proj", "self_attn.k_proj"}:
            return weight
        # Row r of a head goes to 2r in the first half of the head and to 2(r - HEAD/2) + 1 in the second.
        moved = np.empty_like(weight)
        for row in range(weight.shape[0]):
            head, r = divmod(row, HEAD)
            moved[head * HEAD + (2 * r if r < HEAD // 2 else 2 * (r - HEAD // 2) + 1)] = weight[row]
        return moved


def factors(shape: tuple[int, int], rank: int, seed: int, size: float = 1.0) -> tuple[Array, Array]:
    """Random lora_A (rank, inputs) and lora_B (outputs, rank) for a weight of this shape."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rank, shape[1])) * (size / np.sqrt(shape[1]))
    return a.astype(np.float32), (rng.normal(size=(shape[0], rank)) * size / rank).astype(np.float32)


def lora(rank: int = 4, modules: tuple[str, ...] = (), seed: int = 1) -> dict[str, tuple[Array, Array]]:
    """Factors for ``modules`` (full names), or for every linear layer of the tiny model."""
    names = modules or tuple(f"model.layers.{layer}.{kind}" for layer in range(LAYERS) for kind in SHAPES)
    return {
        name: factors((VOCABULARY, HIDDEN) if name == "lm_head" else SHAPES[name.split(".", 3)[3]], rank, seed + i)
        for i, name in enumerate(names)
    }


def peft_tensors(modules: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Factors under the names PEFT stores them by."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": factor
        for name, pair in modules.items()
        for letter, factor in zip("AB", pair, strict=True)
    }


def peft_config(rank: int = 4, **changes: Any) -> dict[str, Any]:
    """A config as ``peft.LoraConfig.save_pretrained`` writes it (0.21), with ``changes``."""
    return {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": "",
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 8,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "lora_ga_config": None,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "monteclora_config": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj", "v_proj"],
        "target_parameters": None,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
        "velora_config": None,
    } | changes


def write_peft(
    folder: Path,
    modules: Mapping[str, tuple[Array, Array]] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """A PEFT folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = lora() if modules is None else modules
    save_file(peft_tensors(modules), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = next(iter(modules.values()))[0].shape[0] if modules else 4
    text = json.dumps(peft_config(rank) if config is None else dict(config))
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    if record is not None:
        (folder / "peft-daemon.json").write_text(json.dumps(dict(record)), encoding="utf-8")
    return folder


def _add_vocabulary(writer: gguf.GGUFWriter, pretokenizer: str, control: Sequence[str]) -> None:
    """A byte-level BPE vocabulary, bytes spelled as GPT-2 spells them."""
    spelled = [chr(0x100 + byte) for byte in range(0x21)]
    spelled += [chr(byte) for byte in range(0x21, 0x7F)] + [chr(0x121)]
    spelled[: len(control)] = control
    kinds = [gguf.TokenType.CONTROL] * len(control) + [gguf.TokenType.NORMAL] * (129 - len(control))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pretokenizer)
    writer.add_token_list([*spelled, "in", "<|endoftext|>"])
    writer.add_token_types([*kinds, gguf.TokenType.CONTROL])
    writer.add_token_merges(["i n"])
    writer.add_eos_token_id(129)
    writer.add_add_bos_token(False)
