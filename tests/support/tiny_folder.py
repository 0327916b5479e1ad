"""Folders in transformers' layout: tiny random models, each with the control tokens of its family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTEXT = 1024
QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)
CONTROL = {
    "qwen2": QWEN,
    "qwen3": QWEN,
    "llama": ("<unk>", "<s>", "</s>", "▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"),
    "starcoder2": (
        *("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"),
    ),
    "gpt_bigcode": ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>"),
    "codegen": ("<|endoftext|>",),
    "t5": ("<pad>", "<s>", "</s>", "<extra_id_0>", "<extra_id_1>"),
}
NOT_MARKED = frozenset({"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|repo_name|>", "<|file_sep|>"})
"""Tokens that Qwen's tokenizers do not mark as special."""
ENDS = {"llama": "</s>", "t5": "</s>"}
"""End tokens of families other than ``<|endoftext|>``."""
FILL_FORMATS = {
    "qwen2": "qwen-fim-v1",
    "qwen3": "qwen-fim-v1",
    "llama": "codellama-fim-v1",
    "starcoder2": "starcoder2-fim-v1",
    "gpt_bigcode": "granite-code-fim-v1",
    "codegen": "left-to-right-v1",
    "t5": "t5-span-v1",
}


def write_folder(family: str, folder: Path, *, seed: int = 0, dtype: str = "float32", **changes: Any) -> Path:
    """Write a model of this family; ``changes`` are of its config."""
    import torch

    from support.tiny_models import tiny_model

    tokenizer = _tokenizer(family)
    words = tokenizer.get_vocab_size()
    end = tokenizer.token_to_id(ENDS.get(family, "<|endoftext|>"))
    ends = {"vocab_size": words, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    length = {
        "codegen": {"n_positions": CONTEXT, "n_ctx": CONTEXT},
        "gpt_bigcode": {"n_positions": CONTEXT},
        "t5": {"decoder_start_token_id": tokenizer.token_to_id("<pad>")},
    }.get(family, {"max_position_embeddings": CONTEXT})
    if family == "t5":
        ends["pad_token_id"] = tokenizer.token_to_id("<pad>")
    # With the usual range a model of this size repeats one token, whatever it is shown.
    spread = {} if family == "t5" else {"initializer_range": 0.3}
    model = tiny_model(family, seed=seed, **{**ends, **length, **spread, **changes})
    model.to(getattr(torch, dtype)).save_pretrained(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        f'{{"eos_token": "{ENDS.get(family, "<|endoftext|>")}", "model_max_length": {CONTEXT}}}'
    )
    return folder


def _tokenizer(family: str) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    control = [AddedToken(each, special=each not in NOT_MARKED, normalized=False) for each in CONTROL[family]]
    if family == "llama":
        words = [*CONTROL["llama"][:3], *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgrtunx():=1+"]
        made = Tokenizer(
            models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[], byte_fallback=True, fuse_unk=True)
        )
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE(vocab={each: at for at, each in enumerate(alphabet)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    made.add_tokens(control)
    if family == "t5":
        # As CodeT5+'s tokenizer, which is RoBERTa's.
        ends = [(each, made.token_to_id(each)) for each in ("</s>", "<s>")]
        made.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return made
