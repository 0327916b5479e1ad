"""Rendered conversations become a prompt format with the same text, and never lose or invent a control token."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.completion import prompt
from peft_daemon.completion.chat_template import ANSWER, NEXT_QUESTION, QUESTION, format_of_conversations
from peft_daemon.completion.formats import PromptField, PromptFormat, cut
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import Segment
from support.vocabulary import vocabulary

CONTROL = ("<s>", "</s>", "<|user|>", "<|user|>x", "<|end|>", "[INST]", "[")
VOCABULARY = vocabulary(CONTROL, eos="</s>")
TEXTS = st.lists(
    st.sampled_from([*CONTROL, "\n", " ", "user", "<|", "|>", "<s", "]", "é", "{prefix}", "```"]), max_size=8
).map("".join)


class OneTokenPerByte:
    def count_tokens(self, texts: object) -> list[int]:
        return [len(text.encode()) for text in texts]  # type: ignore[attr-defined]


def text_of(pieces: tuple[Segment | PromptField, ...]) -> str:
    return "".join(piece.text if isinstance(piece, Segment) else f"{{{piece}}}" for piece in pieces)


def asks(form: PromptFormat, *shots: Shot) -> str:
    built, _ = prompt.build(Document(""), form, 10_000, OneTokenPerByte(), intent="sort", shots=shots)
    return "".join(segment.text for segment in built)


@given(TEXTS, st.sets(st.sampled_from(CONTROL)))
def test_a_cut_text_is_the_same_text_with_all_its_control_tokens(text: str, control: set[str]) -> None:
    pieces = cut(text, control, {"{prefix}": PromptField.PREFIX})
    assert text_of(pieces) == text
    literal = [piece.text for piece in pieces if isinstance(piece, Segment) and not piece.special]
    assert {piece.text for piece in pieces if isinstance(piece, Segment) and piece.special} <= control
    assert not [part for part in literal for token in control if token in part]
    assert "" not in literal


@given(TEXTS, TEXTS)
def test_a_question_is_written_as_the_template_writes_it(head: str, tail: str) -> None:
    form = format_of_conversations(f"{head}{QUESTION}{tail}", "", VOCABULARY)
    assert asks(form) == f"{head}Write python code: sort{tail}```python\n"
    assert not form.answered
    assert msgspec.json.decode(msgspec.json.encode(form), type=PromptFormat) == form


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_solved_examples_are_written_as_earlier_turns(once: str, ask: str, tail: str, close: str) -> None:
    """A conversation is what comes once, then for each turn: what asks, the question, the tail, the answer, the end."""
    one = f"{once}{ask}{QUESTION}{tail}"
    two = f"{one}{ANSWER}{close}{ask}{NEXT_QUESTION}{tail}"
    form = format_of_conversations(one, two, VOCABULARY)
    assert asks(form) == f"{once}{ask}Write python code: sort{tail}```python\n"
    if form.answered:
        expected = (
            f"{once}{ask}Write python code: add{tail}```python\na + b\n```{close}"
            f"{ask}Write python code: sort{tail}```python\n"
        )
        assert asks(form, Shot("add", "a + b")) == expected


def test_turns_with_control_tokens_show_solved_examples_and_end_with_theirs() -> None:
    one = f"<s><|user|>\n{QUESTION}<|end|>\n"
    form = format_of_conversations(one, f"{one}{ANSWER}</s>\n<|user|>\n{NEXT_QUESTION}<|end|>\n", VOCABULARY)
    assert form.answered == (Segment("\n```"), Segment("</s>", special=True), Segment("\n"))
    assert (form.end, form.question) == ("</s>", 1)
    assert form.stop == ("\n```", "<s>", "<|user|>", "<|end|>", "</s>")


def test_the_id_is_that_of_the_pieces() -> None:
    forms = [format_of_conversations(f"{head}{QUESTION}", "", VOCABULARY) for head in ("a", "a", "b")]
    assert forms[0].id == forms[1].id != forms[2].id
    assert len(forms[0].id) == len("chat-") + 12


@pytest.mark.parametrize(("asked", "times"), [("no question", 0), (f"{QUESTION} {QUESTION}", 2)])
def test_a_conversation_that_does_not_show_the_question_once_is_refused(asked: str, times: int) -> None:
    with pytest.raises(InvalidInput, match=f"shows the user's message {times} times"):
        format_of_conversations(asked, "", VOCABULARY)


@pytest.mark.parametrize(
    ("model", "metadata", "begins"),
    [
        ("gpt2", {}, False),
        ("gpt2", {"add_bos_token": True}, True),
        ("llama", {}, True),
        ("llama", {"add_bos_token": False}, False),
    ],
)
def test_the_prompt_begins_with_the_token_that_the_tokenizer_would_add(
    model: str, metadata: dict[str, bool], begins: bool
) -> None:
    added = vocabulary(CONTROL, model=model, bos="<s>", eos="</s>", **metadata)
    for head in ("", "<s>"):
        form = format_of_conversations(f"{head}{QUESTION}", "", added)
        assert (form.pieces[0] == Segment("<s>", special=True)) == (begins or head == "<s>")
        assert form.pieces.count(Segment("<s>", special=True)) <= 1
