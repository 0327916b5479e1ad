"""Tiny random bases, a byte-level tokenizer and a small data set, for tests of tuning."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CodeGenConfig,
    CodeGenForCausalLM,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from peft_daemon.engines.torch import families
from peft_daemon.engines.torch.base_model import LoadedBase, Precision
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning.data.examples import DataSet, Example, FillExample, IntentExample
from peft_tuning.job import TuneJob
from peft_tuning.methods.base import MethodOptions

FORMATS = PromptFormats(fill="qwen-fim-v1", intent="qwen-chat-v1")
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *FIM, "<|repo_name|>", "<|file_sep|>")
WORDS = 256 + len(CONTROL)
FAMILIES = ("qwen2", "qwen3", "llama", "codegen", "gpt_bigcode", "starcoder2", "t5")


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the control tokens of Qwen2.5-Coder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={each: at for at, each in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in CONTROL])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=CONTROL[0], pad_token=CONTROL[0])


def model(family: str) -> PreTrainedModel:
    """Two random layers; dropout off, as in the real models."""
    torch.manual_seed(7)
    ends = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256}
    llama = {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        **ends,
    }
    gpt = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, **ends}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    match family:
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**llama, tie_word_embeddings=False))
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**llama, head_dim=16))
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**llama))
        case "codegen":
            return CodeGenForCausalLM(CodeGenConfig(**gpt, **off, rotary_dim=8, n_ctx=2048))
        case "gpt_bigcode":
            return GPTBigCodeForCausalLM(GPTBigCodeConfig(**gpt, **off))
        case "starcoder2":
            return Starcoder2ForCausalLM(
                Starcoder2Config(**llama, sliding_window=None, residual_dropout=0.0, embedding_dropout=0.0)
            )
        case _:
            config = T5Config(
                vocab_size=WORDS,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                dropout_rate=0.0,
                decoder_start_token_id=256,
                **ends,
            )
            return T5ForConditionalGeneration(config)


def base(family: str = "qwen2") -> LoadedBase:
    """A base as ``base_model`` gives it."""
    made = model(family).eval().requires_grad_(False)
    return LoadedBase(
        made, tokenizer(), families.family_of(made.config.model_type), Precision.FLOAT32, "none", "0" * 64
    )


def data(train: int = 22, validation: int = 5) -> DataSet:
    """Sentences with code and files with holes, of many lengths."""

    def example(number: int) -> Example:
        if number % 3:
            code = "\n".join(f"y{line} = x[{number}] + {line}" for line in range(1 + number % 4))
            return IntentExample(id=f"i/{number}", intent=f"add {number} to x " * (1 + number % 3), code=code)
        before = "".join(f"def f{line}(a):\n    return a\n\n" for line in range(number % 5))
        return FillExample(
            id=f"f/{number}", prefix=f"{before}def g(a, b):\n    return ", suffix="\n", middle=f"a + b * {number}"
        )

    examples = tuple(example(number) for number in range(train + validation))
    return DataSet(
        name="tiny", train=examples[:train], validation=examples[train:], prompt_tokens=256, response_tokens=96
    )


def job(**changes: object) -> TuneJob:
    """A run of seconds: 2 epochs of 6 steps with evaluations after every 3, dropout on."""
    settings: dict[str, object] = {
        "method": "lora",
        "options": MethodOptions(rank=2, dropout=0.1),
        "epochs": 2,
        "batch_size": 4,
        "batch_tokens": 512,
        "learning_rate": 1e-2,
        "evaluations_per_epoch": 2,
        "threads": 1,
        **changes,
    }
    return TuneJob(**settings)  # type: ignore[arg-type]


def adapter_bytes(folder: Path) -> bytes:
    """The weights file of an adapter."""
    return (folder / "adapter_model.safetensors").read_bytes()
