"""The fill-in-the-middle format that a model's vocabulary asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peft_core.api_types import Task
from peft_core.errors import InvalidInput
from peft_core.gguf import TokenKind
from peft_daemon.completion.detection import (
    fill_format_of,
    fill_or_continue_format_of,
    instruct_format_of,
)
from peft_daemon.completion.formats import ENTRIES, FORMATS
from support.vocabulary import vocabulary

FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
STARCODER = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<|endoftext|>")
QWEN = (*FIM, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
CODE_LLAMA = ("<s>", "</s>", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
VOCABULARIES = {
    "qwen-fim-v1": vocabulary(QWEN, pretokenizer="qwen2"),
    "codellama-fim-v1": vocabulary(CODE_LLAMA, model="llama"),
    "starcoder2-fim-v1": vocabulary((*STARCODER, "<repo_name>", "<file_sep>"), pretokenizer="starcoder"),
    "deepseek-fim-v1": vocabulary(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        pretokenizer="deepseek-coder",
    ),
    "codegemma-fim-v1": vocabulary(
        ("<bos>", "<eos>", *FIM, "<|file_separator|>", "<start_of_turn>", "<end_of_turn>"), model="llama"
    ),
    "granite-code-fim-v1": vocabulary((*STARCODER, "<filename>", "<reponame>"), pretokenizer="refact"),
    "granite4-fim-v1": vocabulary((*FIM, "<|fim_pad|>", "<|end_of_text|>", "<|start_of_role|>"), pretokenizer="dbrx"),
    "seedcoder-fim-v1": vocabulary(
        ("<[begin▁of▁sentence]>", "<[end▁of▁sentence]>", "<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
        pretokenizer="seed-coder",
    ),
    "mellum-fim-v1": vocabulary((*STARCODER, "<filename>", "<reponame>"), pretokenizer="mellum"),
    "codestral-fim-v1": vocabulary(
        ("<s>", "</s>", "[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"), model="llama"
    ),
}


def test_every_fill_format_can_be_found() -> None:
    fills = {name for name, form in FORMATS.items() if form.task is Task.FILL}
    assert set(VOCABULARIES) == fills - {"left-to-right-v1", "t5-span-v1"}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_family_is_known_by_its_vocabulary(name: str) -> None:
    assert fill_format_of(VOCABULARIES[name]) is FORMATS[name]


def test_user_defined_tokens_count_and_plain_text_does_not() -> None:
    tokens = ("<s>", "</s>", "[PREFIX]", "[SUFFIX]")
    assert fill_format_of(vocabulary(tokens, kind=TokenKind.USER_DEFINED)).id == "codestral-fim-v1"
    with pytest.raises(InvalidInput, match=re.escape("(codestral-fim-v1), of which it lacks [SUFFIX]")):
        fill_format_of(vocabulary(("<s>", "</s>", "[PREFIX]"), plain=("[SUFFIX]",)))


def test_tokens_that_llama_cpp_takes_for_control_tokens_may_be_marked_as_text() -> None:
    assert fill_format_of(vocabulary(("<s>",), plain=CODE_LLAMA[1:])).id == "codellama-fim-v1"


def test_the_tokens_that_the_file_names_decide() -> None:
    both = (*QWEN, *STARCODER[:3])
    named = vocabulary(both, fim_pre="<fim_prefix>", fim_suf="<fim_suffix>")
    assert fill_format_of(vocabulary(both)).id == "qwen-fim-v1"
    assert fill_format_of(named).id == "granite-code-fim-v1"
    old = vocabulary(both, prefix="<fim_prefix>", suffix="<fim_suffix>")
    assert fill_format_of(old).id == "granite-code-fim-v1"


@pytest.mark.parametrize("wrong", [-1, 10_000, "7", 1.5])
def test_an_id_that_is_none_is_passed_over_as_llama_cpp_does(wrong: object) -> None:
    assert fill_format_of(vocabulary(QWEN, fim_pre_token_id=wrong)).id == "qwen-fim-v1"


@pytest.mark.parametrize(
    ("control", "why"),
    [
        (QWEN[:-4], "the nearest family is Qwen2.5-Coder, Qwen3-Coder (qwen-fim-v1), of which it lacks "),
        (QWEN[:-4], "<|endoftext|>, <|file_sep|>"),
        (("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), "DeepSeek-Coder (deepseek-fim-v1)"),
        (("<|im_start|>", "<|im_end|>"), "it has no control tokens of any known family"),
        (("<s>", "</s>", "<|endoftext|>"), "it has no control tokens of any known family"),
        ((), "it has no control tokens of any known family"),
    ],
)
def test_a_refusal_says_what_is_missing_and_what_to_type(control: tuple[str, ...], why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fill_format_of(vocabulary(control))
    assert why in caught.value.why
    assert "--fill-format ID" in caught.value.fix
    assert all(name in caught.value.fix for name in VOCABULARIES)


SENTINELS = ("<pad>", "</s>", "<extra_id_0>", "<extra_id_1>")


def test_sentinels_mean_holes_to_t5_alone() -> None:
    assert fill_format_of(vocabulary(SENTINELS), architecture="t5").id == "t5-span-v1"
    assert fill_or_continue_format_of(vocabulary(SENTINELS), architecture="t5").id == "t5-span-v1"
    assert fill_or_continue_format_of(vocabulary(SENTINELS), architecture="llama").id == "left-to-right-v1"
    with pytest.raises(InvalidInput):
        fill_format_of(vocabulary(SENTINELS), architecture="llama")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_model_that_can_fill_in_is_not_continued(name: str) -> None:
    assert fill_or_continue_format_of(VOCABULARIES[name], architecture="llama") is FORMATS[name]


def test_only_a_model_without_any_token_for_holes_is_continued() -> None:
    assert fill_or_continue_format_of(vocabulary(("<|endoftext|>",)), architecture="codegen").id == "left-to-right-v1"
    with pytest.raises(InvalidInput, match="the nearest family is StarCoder2"):
        fill_or_continue_format_of(vocabulary(("<fim_prefix>", "<file_sep>")), architecture="llama")


def test_tokens_of_an_unknown_family_are_named() -> None:
    with pytest.raises(InvalidInput, match=re.escape("it names <A>, <B> as its tokens")):
        fill_format_of(vocabulary((*QWEN, "<A>", "<B>"), fim_pre="<A>", fim_suf="<B>"))


@pytest.mark.parametrize("template", [{}, {"chat_template": ""}, {"chat_template": " \n"}])
def test_a_file_without_a_chat_template_gets_the_format_for_any_family(template: dict[str, str]) -> None:
    assert instruct_format_of(vocabulary(QWEN, **template)) is FORMATS["instruct-v1"]


def test_the_page_lists_every_format_with_its_prompt() -> None:
    page = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): line for line in page.splitlines() if len(cells := line.split(" | ")) == 4}
    for entry in ENTRIES:
        row = rows[entry.id].replace("\\|", "|")
        assert entry.family in row
        assert entry.source in row
        assert entry.prompt.replace("\n", "⏎") in row
