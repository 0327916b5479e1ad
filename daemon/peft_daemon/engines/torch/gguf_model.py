"""Read a model's configuration and weights from a GGUF file, with transformers' names (Qwen2, Qwen3 and Llama).

Tensors are read one at a time from the mapped file and de-quantized as llama.cpp does, a few rows at a time, so that
nothing is in memory twice. ``base_model`` builds the modules, ``tokenizer`` the tokenizer. Formats: ggml's
docs/gguf.md; names and order of rows: llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch

from peft_core.errors import InvalidInput
from peft_core.gguf import GgufHeader, TensorInfo, read_header
from peft_daemon.adapters.validation import ARCHITECTURES, LINEAR_LAYERS
from peft_daemon.engines.torch import families

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

_NUMBERS_AT_A_TIME = 1 << 18
"""How many are de-quantized at once: numpy makes several copies, which should fit into the processor's cache."""
_SCALINGS = {"", "none", "linear"}
_PER_BLOCK = {
    **{f"{kind}.weight": f"{name}.weight" for kind, name in LINEAR_LAYERS.items()},
    **{f"{kind}.bias": f"{name}.bias" for kind, name in LINEAR_LAYERS.items()},
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


class GgufModel:
    """The model in one GGUF file."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises NotFound, or InvalidInput for a file or an architecture that cannot be tuned.
        """
        self.path = path
        self.header: GgufHeader = read_header(path)
        self.architecture = self.header.architecture
        families.family_of(self.architecture)
        if self.architecture not in ARCHITECTURES:
            raise InvalidInput(
                f"GGUF files of the architecture {self.architecture!r} cannot be tuned",
                why=f"known are {', '.join(sorted(ARCHITECTURES))}",
                fix="Add the model as a folder of safetensors: `peft-daemon models add FOLDER`",
            )
        self._file = np.memmap(path, mode="r")

    @property
    def quantization(self) -> str:
        """The type of most of its weights: ``Q4_K_M``, ``Q8_0``, ``F16``, …"""
        stored = self.header.metadata.get("general.file_type")
        known = {int(kind): kind.name for kind in gguf.LlamaFileType}
        return known.get(int(stored), "mixed").removeprefix("MOSTLY_").removeprefix("ALL_") if stored else "F32"

    def config(self) -> Qwen2Config | Qwen3Config | LlamaConfig:
        """Return the model's configuration.

        Raises InvalidInput if the file needs something not supported here.
        """
        from transformers import LlamaConfig, Qwen2Config, Qwen3Config  # noqa: PLC0415  (seconds)

        number, metadata, tensors = self.header.hyperparameter, self.header.metadata, self.header.tensors
        heads = number("attention.head_count")
        values: dict[str, Any] = {
            "vocab_size": tensors["token_embd.weight"].shape[0],
            "hidden_size": number("embedding_length"),
            "intermediate_size": number("feed_forward_length"),
            "num_hidden_layers": number("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": number("attention.head_count_kv", heads),
            "head_dim": number("attention.key_length", number("embedding_length") // heads),
            "max_position_embeddings": number("context_length"),
            "rms_norm_eps": float(metadata[f"{self.architecture}.attention.layer_norm_rms_epsilon"]),
            "rope_parameters": self._rope(),
            "tie_word_embeddings": "output.weight" not in tensors,
            "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
            "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
            "attn_implementation": "sdpa",
        }
        if self.architecture == "qwen2":
            return Qwen2Config(**values)
        if self.architecture == "qwen3":
            return Qwen3Config(**values)
        bias = {part: f"blk.0.{part}.bias" in tensors for part in ("attn_q", "attn_output", "ffn_up")}
        if bias["attn_q"] != bias["attn_output"]:
            raise InvalidInput(
                f"{self.path} has biases on some attention layers only", why="Llama has them on all or on none"
            )
        return LlamaConfig(**values, attention_bias=bias["attn_q"], mlp_bias=bias["ffn_up"])

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield all weights as (transformers' name, float32 tensor).

        Raises InvalidInput for an unknown tensor.
        """
        names = {source: name for name, source in _OUTSIDE.items()}
        for layer in range(self.header.hyperparameter("block_count")):
            names |= {f"blk.{layer}.{source}": f"model.layers.{layer}.{name}" for name, source in _PER_BLOCK.items()}
        unknown = self.header.tensors.keys() - names.keys() - {"rope_freqs.weight"}
        if unknown:
            raise InvalidInput(
                f"{self.path} holds tensors that {self.architecture} has not: {', '.join(sorted(unknown)[:3])}",
                why="leaving them out would tune against another model than the one that is served",
            )
        for source, info in self.header.tensors.items():
            if source in names:
                yield names[source], self._rows_in_order(source, self._dense(info))

    def finish(self, model: PreTrainedModel) -> None:
        """Set the rotary frequencies, which are not in the file and which a model built on the meta device lacks."""
        rotary = type(model.model.rotary_emb)(model.config)
        if (factors := self.header.tensors.get("rope_freqs.weight")) is not None:
            # The file has the factors of Llama 3.1's rescaling, one per frequency.
            rotary.inv_freq /= self._dense(factors)
            rotary.original_inv_freq = rotary.inv_freq.clone()
        model.model.rotary_emb = rotary

    def _rope(self) -> dict[str, Any]:
        metadata = self.header.metadata
        scaling = str(metadata.get(f"{self.architecture}.rope.scaling.type", ""))
        if scaling not in _SCALINGS:
            raise InvalidInput(
                f"{self.path} stretches its positions by {scaling!r}", why="only linear stretching is known here"
            )
        rope = {"rope_theta": float(metadata.get(f"{self.architecture}.rope.freq_base", 10000.0))}
        factor = float(metadata.get(f"{self.architecture}.rope.scaling.factor", 0.0))
        if scaling == "linear" and factor:
            return rope | {"rope_type": "linear", "factor": factor}
        return rope | {"rope_type": "default"}

    def _dense(self, info: TensorInfo) -> torch.Tensor:
        """De-quantize a stored tensor to float32."""
        kind = gguf.GGMLQuantizationType(info.type)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        columns, rows = info.shape[-1], prod(info.shape[:-1])
        width = columns // block * size
        stored = self._file[info.offset : info.offset + rows * width].reshape(rows, width)
        dense = torch.empty(rows, columns, dtype=torch.float32)
        step = max(1, _NUMBERS_AT_A_TIME // columns)
        for first in range(0, rows, step):
            numbers = gguf.quants.dequantize(stored[first : first + step], kind)
            dense[first : first + step] = torch.from_numpy(np.array(numbers, dtype=np.float32))
        return dense.reshape(info.shape)

    def _rows_in_order(self, source: str, weight: torch.Tensor) -> torch.Tensor:
        """Undo the permutation of the conversion: Llama files interleave the halves of query and key heads."""
        if self.architecture != "llama" or not {"attn_q", "attn_k"} & set(source.split(".")):
            return weight
        heads = self.header.hyperparameter("attention.head_count")
        if ".attn_k." in source:
            heads = self.header.hyperparameter("attention.head_count_kv", heads)
        half = weight.shape[0] // heads // 2
        return weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape).contiguous()
