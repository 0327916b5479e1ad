"""Tiny random models of every family the study has, and the same as GGUF files: two layers, a hundred tokens.

Their tokenizer has a token per printable ASCII character and one that ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from peft_daemon.engines.torch.base_model import LoadedBase, Precision

FAMILIES = ("qwen2", "qwen3", "llama", "codegen", "gpt_bigcode", "starcoder2", "t5")
END = 95
WIDTH = 32


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab={chr(32 + i): i for i in range(END)} | {"<eos>": END}, merges=[]))
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def tiny_model(family: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model with random weights, without dropout of its own."""
    import torch
    import transformers as tf

    ends = {"vocab_size": END + 1, "bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    llama = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    gpt = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64, "resid_pdrop": 0, "embd_pdrop": 0}
    t5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    kind, shape = {
        "qwen2": (tf.Qwen2Config, llama | {"num_key_value_heads": 2}),
        "qwen3": (tf.Qwen3Config, llama | {"num_key_value_heads": 2, "head_dim": 16}),
        "llama": (tf.LlamaConfig, llama | {"num_key_value_heads": 2}),
        "starcoder2": (tf.Starcoder2Config, llama | {"num_key_value_heads": 2}),
        "codegen": (tf.CodeGenConfig, gpt | {"n_ctx": 64, "rotary_dim": 4, "attn_pdrop": 0}),
        "gpt_bigcode": (tf.GPTBigCodeConfig, gpt | {"attn_pdrop": 0}),
        "t5": (tf.T5Config, t5 | {"decoder_start_token_id": END}),
    }[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = kind(**(ends | shape | changes))
        auto = tf.AutoModelForSeq2SeqLM if family == "t5" else tf.AutoModelForCausalLM
        model = auto.from_config(config)
        # Biases begin as zeros, and a zero bias in the wrong place would be seen by nobody.
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def tiny_base(family: str, precision: Precision | str = "float32") -> LoadedBase:
    """The same weights at every call, held as ``precision``."""
    from peft_daemon.engines.torch import families
    from peft_daemon.engines.torch.base_model import (
        LoadedBase,
        Precision,
        is_quantizable,
        mark_quantized,
        quantized_linear,
    )

    precision = Precision(precision)
    model = tiny_model(family)
    if precision.quantized:
        for name, module in list(model.named_modules()):
            if is_quantizable(model, name):
                layer = quantized_linear(module.weight.data, precision, "cpu")
                layer.bias = module.bias
                model.set_submodule(name, layer)
        mark_quantized(model, precision)
    return LoadedBase(
        model=model,
        tokenizer=tiny_tokenizer(),
        family=families.family_of(model.config.model_type),
        precision=precision,
        quantization="none",
        sha256="0" * 64,
    )


def write_gguf(
    model: PreTrainedModel,
    path: Path,
    *,
    rope_factors: list[float] | None = None,
    context: int = 64,
    control: Sequence[str] = (),
) -> None:
    """A Qwen2, Qwen3 or Llama model as llama.cpp's converter writes it, float32, with a SentencePiece-like vocabulary.

    Tokens of ``control`` come after those; the model has to have them too.
    """
    import gguf
    import numpy as np

    config, architecture = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    usual = config.hidden_size // config.num_attention_heads
    head = getattr(config, "head_dim", None) or usual
    if head != usual:
        writer.add_key_length(head)
        writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer, control)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        rows = tensor.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if architecture == "llama" and part in name:
                rows = rows.reshape(count, 2, rows.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(rows.shape)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), np.ascontiguousarray(rows))
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PIECES = ("▁", "d", "e", "f", "r", "t", "u", "n", "(", ")", ":", "x", "=", "1", "\u00e9")
MERGED = ("re", "de", "def", "▁re", "tu", "rn", "return", "▁def", "▁return", "▁▁", "▁▁▁▁", "():")
CONTROL = ("<unk>", "<s>", "</s>")


def _add_vocabulary(writer: Any, control: Sequence[str]) -> None:
    tokens = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *MERGED, *PIECES, *control]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(MERGED + PIECES), *[3] * len(control)]
    scores = [0.0] * 259 + [-float(i) for i in range(len(MERGED + PIECES))] + [0.0] * len(control)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_scores(scores)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


VOCABULARY = len(CONTROL) + 256 + len(MERGED) + len(PIECES)
"""Size a model must have that ``write_gguf`` writes."""
