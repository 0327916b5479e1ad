"""Tokens as bytes, and the tokens with which an answer may begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from peft_daemon.engines.torch.vocabulary import Vocabulary

pytestmark = pytest.mark.torch


def byte_level() -> Vocabulary:
    """As Qwen's: a space is written Ġ, é is the two characters Ã and ©."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    from peft_daemon.engines.torch.vocabulary import Vocabulary

    tokens = ["Ġ", "Ġr", "Ġre", "r", "e", "Ã", "©", "Ã©", "Ġret", "x", "re"]
    backend = Tokenizer(models.BPE(vocab={token: id_ for id_, token in enumerate(tokens)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<r>", special=True)])
    backend.add_tokens([AddedToken("<tool>", special=False)])
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<r>"))


def test_tokens_are_the_bytes_of_the_text() -> None:
    vocabulary = byte_level()
    assert [vocabulary.text(id_) for id_ in (2, 5, 7, 11, 13, 99)] == [
        *(b" re", b"\xc3", "é".encode(), b"<|im_end|>", b"<tool>", b"")
    ]
    assert vocabulary.ends == {11, 12}


@pytest.mark.parametrize(
    ("text", "may"), [(" re", {0, 1, 2, 8}), ("é", {5, 7}), ("r", {3, 10}), ("<", {13}), ("q", set())]
)
def test_an_answer_may_begin_with_a_part_of_the_text_or_with_more(text: str, may: set[int]) -> None:
    assert set(byte_level().beginning(text.encode())) == may


def test_sentencepiece_spells_spaces_and_bytes() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    from peft_daemon.engines.torch.vocabulary import Vocabulary

    backend = Tokenizer(models.BPE(vocab={"▁def": 0, "<0xC3>": 1, "é": 2}, merges=[]))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [vocabulary.text(id_) for id_ in range(3)] == [b" def", b"\xc3", "é".encode()]
