"""Prompt formats are data: what they promise to serving and tuning."""

from __future__ import annotations

import pytest

from peft_core.api_types import Task
from peft_core.errors import NotFound
from peft_daemon.completion import formats
from peft_daemon.completion.formats import FORMATS, PromptField
from peft_daemon.engines.base import Segment

KNOWN = (
    "codegemma-fim-v1",
    "codellama-fim-v1",
    "codestral-fim-v1",
    "deepseek-fim-v1",
    "granite-code-fim-v1",
    "granite4-fim-v1",
    "instruct-v1",
    "left-to-right-v1",
    "mellum-fim-v1",
    "qwen-chat-file-v1",
    "qwen-chat-v1",
    "qwen-fim-v1",
    "seedcoder-fim-v1",
    "starcoder2-fim-v1",
    "t5-span-v1",
)
SUFFIX_FIRST = {"codestral-fim-v1", "mellum-fim-v1", "seedcoder-fim-v1"}
SENTENCE_PIECE = {"codegemma-fim-v1", "codellama-fim-v1", "codestral-fim-v1"}
WITHOUT_WORDS = {*SENTENCE_PIECE, "t5-span-v1"}
WITHOUT_SUFFIX = {"left-to-right-v1"}
BEGINNINGS = {"<s>", "<bos>", "<｜begin▁of▁sentence｜>"}


def test_the_published_ids_exist() -> None:
    assert sorted(FORMATS) == list(KNOWN)
    assert all(formats.get(name).id == name for name in KNOWN)


def test_an_unknown_id_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        formats.get("qwen-fim-v9")
    assert all(name in caught.value.line for name in KNOWN)


@pytest.mark.parametrize("name", [name for name in KNOWN if FORMATS[name].task is Task.FILL])
def test_a_fill_format_has_its_family_s_order_and_what_is_typed_last(name: str) -> None:
    slots = [
        piece for piece in FORMATS[name].pieces if isinstance(piece, PromptField) and piece is not PromptField.PATH
    ]
    ends = [PromptField.PREFIX] if name in WITHOUT_SUFFIX else [PromptField.PREFIX, PromptField.SUFFIX]
    ordered = ends[::-1] if name in SUFFIX_FIRST else ends
    assert slots in ([*ordered, PromptField.TYPED], ordered)
    # After a middle token SentencePiece would put a space before what is typed, or make other tokens of it.
    assert (PromptField.TYPED in slots) == (name not in WITHOUT_WORDS or name in SUFFIX_FIRST)


@pytest.mark.parametrize("name", [name for name in KNOWN if FORMATS[name].task is Task.FILL])
def test_text_is_held_back_only_where_the_tokenizer_has_words(name: str) -> None:
    assert bool(FORMATS[name].pretokenizer) == (name not in WITHOUT_WORDS)


@pytest.mark.parametrize("name", [name for name in KNOWN if FORMATS[name].task is Task.FILL])
def test_a_fill_answer_ends_at_every_control_token_of_its_prompt(name: str) -> None:
    form = FORMATS[name]
    control = [piece for piece in (*form.pieces, *form.with_context) if isinstance(piece, Segment) and piece.special]
    # Code Llama's vocabulary writes ``▁`` before its tokens' names; in text it is a space.
    named = {piece.text.lstrip("▁") for piece in control} | {form.end.lstrip("▁")}
    assert named - BEGINNINGS - {""} <= set(form.stop)


@pytest.mark.parametrize("name", [name for name in KNOWN if FORMATS[name].with_context])
def test_context_comes_before_the_file_it_helps(name: str) -> None:
    slots = [piece for piece in FORMATS[name].with_context if isinstance(piece, PromptField)]
    assert slots.index(PromptField.CONTEXT) < slots.index(PromptField.PREFIX)
    assert PromptField.TEXT in FORMATS[name].chunk


def test_code_llama_keeps_the_line_in_the_prefix_because_its_tokenizer_adds_a_space() -> None:
    assert PromptField.TYPED not in FORMATS["codellama-fim-v1"].pieces


def test_the_study_s_prompt_is_reproduced_to_the_letter() -> None:
    filled = [
        piece if isinstance(piece, Segment) else Segment("sort a list") for piece in FORMATS["instruct-v1"].pieces
    ]
    assert "".join(piece.text for piece in filled) == "### Instruction:\nsort a list\n### Response:\n"
    assert not any(piece.special for piece in filled)
