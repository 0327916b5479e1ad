"""The text of an answer: tokens as bytes, whole characters only, and nothing at or after a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_daemon.engines.base import TokenLogprob

if TYPE_CHECKING:
    from peft_daemon.engines.torch.tokenizer import ByteVocabulary

pytestmark = pytest.mark.torch


def byte_level() -> ByteVocabulary:
    """As Qwen's: a space is written Ġ, é is the two characters Ã and ©."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    from peft_daemon.engines.torch.tokenizer import ByteVocabulary

    tokens = ["Ġ", "Ġr", "Ġre", "r", "e", "Ã", "©", "Ã©", "Ġret", "x", "re"]
    backend = Tokenizer(models.BPE(vocab={token: id_ for id_, token in enumerate(tokens)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<r>", special=True)])
    backend.add_tokens([AddedToken("<tool>", special=False)])
    return ByteVocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<r>"))


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

    from peft_daemon.engines.torch.tokenizer import ByteVocabulary

    backend = Tokenizer(models.BPE(vocab={"▁def": 0, "<0xC3>": 1, "é": 2}, merges=[]))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    vocabulary = ByteVocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [vocabulary.text(id_) for id_ in range(3)] == [b" def", b"\xc3", "é".encode()]


texts = st.text(st.sampled_from("abé\n"), max_size=12)


def told(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], bool]:
    from peft_daemon.engines.torch.generation import AnswerText

    answer, parts = AnswerText(stops), []
    for piece in pieces:
        parts.append(answer.add(piece)[0])
        if answer.stopped:
            break
    return [*parts, answer.rest()[0]], answer.stopped


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    text = draw(texts)
    raw = text.encode()
    places = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    return text, [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]


@given(answer=cut(), stops=st.lists(st.text(st.sampled_from("abé\n"), min_size=1, max_size=4), max_size=3))
def test_the_text_up_to_the_first_stop_string_is_told_and_nothing_else(
    answer: tuple[str, list[bytes]], stops: list[str]
) -> None:
    text, pieces = answer
    # A stop string counts when it is complete: of two that overlap, the one that ends first.
    ends = [(found + len(stop), found) for stop in stops if (found := text.find(stop)) >= 0]
    parts, stopped = told(pieces, tuple(stops))
    assert stopped is bool(ends)
    assert text.startswith("".join(parts))
    if not ends:
        assert "".join(parts) == text
    else:
        assert all(stop not in "".join(parts) for stop in stops)
        assert len("".join(parts)) in {found for _, found in ends}


def test_text_is_given_out_at_once_unless_a_stop_string_may_begin_in_it() -> None:
    assert told([b"ab", b"c\n", b"\n", b"def"], ("\n\ndef",)) == (["ab", "c", "", "", ""], True)
    assert told([b"ab", b"c\n", b"x"], ("\n\ndef",)) == (["ab", "c", "\nx", ""], False)


def test_half_a_character_waits_for_its_other_half_and_is_dropped_at_the_end() -> None:
    assert told(["é".encode()[:1], "é".encode()[1:], "é".encode()[:1]], ()) == (["", "é", "", ""], False)


def test_logprobs_come_with_the_text_of_their_token_and_not_for_what_is_cut_off() -> None:
    from peft_daemon.engines.torch.generation import AnswerText

    a, b, c = (TokenLogprob(name, -1.0) for name in "abc")
    answer = AnswerText(("##",))
    assert answer.add(b"x#", a) == ("x", (a,))
    assert answer.add(b"y", b) == ("#y", (b,))
    assert answer.add(b"##z", c) == ("", ())
    assert answer.rest() == ("", ())
