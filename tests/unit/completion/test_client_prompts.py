"""Prompts that clients write with control tokens are understood, and text that only talks about them stays text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.api_types import ContextChunk, Task
from peft_daemon.completion.client_prompts import FIM_MARKERS, FimMarkers, WrittenHole, parse
from peft_daemon.completion.formats import FORMATS, PromptField
from peft_daemon.engines.base import Segment

QWEN = FIM_MARKERS[0]
BEFORE, AFTER = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
HOLE = WrittenHole(BEFORE, AFTER)
CHUNK = ContextChunk("a.py", "import os\n")
TOKENS = sorted({token for each in FIM_MARKERS for token in (each.prefix, each.suffix, each.middle) if token})
PLAIN = st.text(max_size=60).filter(lambda text: not any(token in text for token in TOKENS))
CODE = st.lists(st.sampled_from(["x = 1", "\n", " ", "(", "<|", "|>", "fim", "é", "[", "prefix"]), max_size=20).map(
    "".join
)
ANY = st.one_of(PLAIN, CODE)


@pytest.mark.parametrize(
    "prompt",
    [
        f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
        f"<|fim_suffix|>{AFTER}<|fim_prefix|>{BEFORE}<|fim_middle|>",
        f"<|fim_prefix|>{BEFORE}<|fim_middle|><|fim_suffix|>{AFTER}",
        f"<|fim_prefix|>def add(a, b):\n<|fim_suffix|>{AFTER}<|fim_middle|>    return ",
        f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>",
        f"<fim_prefix><fim_suffix>{AFTER}<fim_middle>{BEFORE}",
        f"<｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>",
        f"<｜begin▁of▁sentence｜><｜fim▁begin｜>{BEFORE}<｜fim▁hole｜>{AFTER}<｜fim▁end｜>",
        f"<PRE> {BEFORE} <SUF>{AFTER} <MID>",
        f"<s> <PRE> {BEFORE} <SUF>{AFTER} <MID>",
        f"<PRE> <SUF>{AFTER} <MID> {BEFORE}",
        f"[SUFFIX]{AFTER}[PREFIX]{BEFORE}",
        f"<|code_prefix|>{BEFORE}<|code_suffix|>{AFTER}<|code_middle|>",
        f"<[fim-suffix]>{AFTER}<[fim-prefix]>{BEFORE}<[fim-middle]>",
    ],
)
def test_a_hole_is_understood_in_each_family_and_order(prompt: str) -> None:
    assert parse(prompt) == HOLE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("<|repo_name|>shop\n<|file_sep|>a.py\nimport os\n<|file_sep|>b.py\n", ("b.py", "shop", (CHUNK,))),
        ("<|file_sep|>a.py \nimport os\n<|file_sep|>b.py\n", ("b.py", "", (CHUNK,))),
        ("<|file_sep|>a.py\nimport os\n", (None, "", (CHUNK,))),
        ("<|file_sep|>b.py\n", ("b.py", "", ())),
        ("<|file_sep|>\n", (None, "", ())),
        ("<|repo_name|>shop\n", (None, "shop", ())),
    ],
)
def test_other_files_become_context(header: str, expected: tuple[str | None, str, tuple[ContextChunk, ...]]) -> None:
    prompt = f"{header}<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
    assert parse(prompt) == WrittenHole(BEFORE, AFTER, *expected)


@pytest.mark.parametrize("others", ["", "[object Object]", "[object Object]\n[object Object]"])
def test_the_preamble_of_llama_vscode_says_nothing(others: str) -> None:
    hole = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
    assert parse(f"Context:\n\n{others}{hole}") == HOLE
    assert parse(f"Context: {others}{hole}") is None


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|endoftext|>", "<|file_sep|>", "<|repo_name|>", "<fim_prefix>", "[PREFIX]"]
)
def test_other_tokens_inside_a_file_stay_its_text(token: str) -> None:
    prompt = f"<|fim_prefix|># {token}\n{BEFORE}<|fim_suffix|>{AFTER}# {token}\n<|fim_middle|>"
    assert parse(prompt) == WrittenHole(f"# {token}\n{BEFORE}", f"{AFTER}# {token}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        BEFORE,
        f"<|fim_prefix|>{BEFORE}",
        f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}",
        f"{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
        f"# The tokens:\n<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
        f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|><|fim_middle|>",
        f'<|fim_prefix|>suffix = "<|fim_suffix|>"<|fim_suffix|>{AFTER}<|fim_middle|>',
        f"<|fim_middle|><|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}",
        f"<|fim_prefix|>{BEFORE}<fim_suffix>{AFTER}<|fim_middle|>",
        f"<|repo_name|>shop\nmore<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>",
        "SUFFIX, PREFIX = '[SUFFIX]', '[PREFIX]'",
    ],
)
def test_what_is_not_such_a_prompt_as_a_whole_stays_text(text: str) -> None:
    assert parse(text) is None


NO_CLIENTS = {"left-to-right-v1", "t5-span-v1"}
"""One is plain text, and no client writes the other."""


@pytest.mark.parametrize(
    "form",
    [form for form in FORMATS.values() if form.task is Task.FILL and form.id not in NO_CLIENTS],
    ids=lambda form: form.id,
)
def test_the_formats_that_are_served_are_understood_as_clients_write_them(form: object) -> None:
    values = {PromptField.PREFIX: BEFORE, PromptField.SUFFIX: AFTER, PromptField.TYPED: "", PromptField.PATH: "b.py"}
    pieces = form.pieces  # type: ignore[attr-defined]
    text = "".join(piece.text if isinstance(piece, Segment) else values[piece] for piece in pieces)
    path = "b.py" if PromptField.PATH in pieces else None
    assert parse(text.replace("▁<", " <")) == WrittenHole(BEFORE, AFTER, path)


def written(markers: FimMarkers, prefix: str, suffix: str, *, suffix_first: bool) -> str:
    space = " " if markers.spaced else ""
    before, after = f"{markers.prefix}{space}{prefix}", f"{markers.suffix}{suffix}"
    parts = [after, before] if suffix_first or not markers.middle else [before, after]
    return space.join([*parts, markers.middle] if markers.middle else parts)


@given(ANY, ANY, st.sampled_from(FIM_MARKERS), st.booleans())
def test_any_text_comes_back_as_it_was(prefix: str, suffix: str, markers: FimMarkers, suffix_first: bool) -> None:
    hole = parse(written(markers, prefix, suffix, suffix_first=suffix_first and not markers.spaced))
    assert hole == WrittenHole(prefix, suffix)


@given(ANY, ANY, ANY, st.sampled_from([QWEN.prefix, QWEN.suffix, QWEN.middle]))
def test_a_text_with_a_token_more_stays_text(prefix: str, suffix: str, more: str, token: str) -> None:
    whole = written(QWEN, prefix, suffix, suffix_first=False)
    assert parse(whole + more + token) is None
    assert parse(whole.replace(prefix + QWEN.suffix, prefix + token + more + QWEN.suffix)) is None


@given(st.lists(st.one_of(st.sampled_from([*TOKENS, "<|file_sep|>", "<|repo_name|>", "\n", " "]), CODE), max_size=8))
def test_any_text_is_understood_or_left_alone(parts: list[str]) -> None:
    text = "".join(parts)
    hole = parse(text)
    if hole is not None:
        said = (hole.prefix, hole.suffix, hole.path or "", hole.repository, *(chunk.text for chunk in hole.context))
        assert sum(map(len, said)) < len(text)
