"""A GGUF model in torch computes what llama.cpp computes, and its tokenizer makes the same tokens: tiny files."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lora_server import serve
from support.tiny_models import VOCABULARY, tiny_model, write_gguf

pytestmark = pytest.mark.torch

PROMPT = [1, 262, 274, 265]
SHAPES = {
    "qwen2 with tied embeddings": ("qwen2", {"tie_word_embeddings": True}, None),
    "qwen2 with an output matrix": ("qwen2", {"tie_word_embeddings": False}, None),
    "qwen3": ("qwen3", {"tie_word_embeddings": False, "head_dim": 16}, None),
    "llama": ("llama", {"tie_word_embeddings": False}, None),
    "llama with rescaled positions": ("llama", {"tie_word_embeddings": True}, [1.0, 2.0, 4.0, 8.0]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_and_llama_cpp_compute_the_same_probabilities(shape: str, tmp_path: Path) -> None:
    import torch

    from peft_daemon.engines.torch.base_model import Precision, load_gguf

    family, changes, factors = SHAPES[shape]
    original = tiny_model(family, vocab_size=VOCABULARY, initializer_range=0.3, **changes)
    path = tmp_path / "tiny.gguf"
    write_gguf(original, path, rope_factors=factors)
    base = load_gguf(path, Precision.FLOAT32)
    with torch.no_grad():
        ours = torch.log_softmax(base.model(torch.tensor([PROMPT])).logits[0, -1], dim=-1)
        source = torch.log_softmax(original(torch.tensor([PROMPT])).logits[0, -1], dim=-1)
    with serve(path) as server:
        # More than one token: half a character at the very end is not reported.
        theirs = server.tokens(PROMPT, count=8, top=10)[0].top
    # llama.cpp keeps keys and values in 16 bits; rows in a wrong order would be off by whole units.
    assert max(abs(ours[token].item() - logprob) for token, logprob in theirs.items()) < 0.01
    # Where the file says nothing of its own, loading gives the model that was written.
    assert torch.equal(ours, source) is (factors is None)
    assert base.quantization == "F32, de-quantized"
    assert base.family.id == family


TEXTS = (
    *(
        "def return",
        "    return",
        "def  f():\n\n\treturn",
        "reré",
        "é",
        "🙂 x=1",
        "",
        " ",
        "x",
        "<s>",
        "</s>x",
        "<0x0A>",
    ),
    *("return return", "▁def", "dedef rere tuturn", "\u00a0 unknown words: ß"),
)


def test_a_sentencepiece_vocabulary_gives_llama_cpps_tokens(tmp_path: Path) -> None:
    from peft_daemon.engines.torch.tokenizer import LiteralTokenizer, load_tokenizer

    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_model("llama", vocab_size=VOCABULARY), path)
    tokenizer = LiteralTokenizer(load_tokenizer(path))
    with serve(path) as server:
        theirs = {text: server.tokenize(text) for text in TEXTS}
        end = server.tokenize("</s>", special=True)
    assert {text: tokenizer.encode_text(text) for text in TEXTS} == theirs
    assert [tokenizer.special_id("</s>")] == end
