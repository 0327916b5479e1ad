"""A GGUF file of a few kilobytes with the tensors of one block, quantized."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

TYPES = {
    "token_embd.weight": gguf.GGMLQuantizationType.Q5_0,
    "blk.0.attn_norm.weight": gguf.GGMLQuantizationType.F32,
    "blk.0.ffn_gate.weight": gguf.GGMLQuantizationType.Q5_0,
    "blk.0.ffn_up.weight": gguf.GGMLQuantizationType.Q5_0,
    "blk.0.ffn_down.weight": gguf.GGMLQuantizationType.Q8_0,
    "output.weight": gguf.GGMLQuantizationType.Q8_0,
}


def small_gguf(path: Path) -> Path:
    """Write it; rows are 64 wide, values as models have them."""
    values = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_array("tokenizer.ggml.tokens", [f"token {n}" for n in range(40)])
    for name, kind in TYPES.items():
        weights = values.normal(0, 0.02, 64 if kind == gguf.GGMLQuantizationType.F32 else (5, 64)).astype(np.float32)
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, weights)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
