"""The exact prompt of every format for one document: control tokens in «», all else literal text."""

from __future__ import annotations

import msgspec
import pytest

from peft_core.api_types import ContextChunk, Task
from peft_core.code.document import Document
from peft_daemon.completion import prompt
from peft_daemon.completion.formats import FORMATS, PromptFormat
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import Prompt

ABOVE = "# a\n" * prompt.TYPED_LINES
DOCUMENT = Document(f"{ABOVE}x = 1\ny = os.pa", "\nz = 3\n", path="app/main.py")
CHUNKS = [ContextChunk("app/util.py", "def g():\n    return 1\n"), ContextChunk("b.py", "import os")]
# What of the line is left out, as the answer has to begin with it: `held_back`.
GPT2, GPT4 = "x = 1\ny = os.", "x = 1\ny = os"
WHOLE = f"{ABOVE}x = 1\ny = os.pa"
AFTER = "\nz = 3\n"

FILL = {
    "qwen-fim-v1": f"«<|fim_prefix|>»{ABOVE}«<|fim_suffix|>»{AFTER}«<|fim_middle|>»{GPT4}",
    "codellama-fim-v1": f"«<s>»«▁<PRE>»{WHOLE}«▁<SUF>»{AFTER}«▁<MID>»",
    "starcoder2-fim-v1": f"«<fim_prefix>»{ABOVE}«<fim_suffix>»{AFTER}«<fim_middle>»{GPT2}",
    "deepseek-fim-v1": (
        f"«<｜begin▁of▁sentence｜>»«<｜fim▁begin｜>»{ABOVE}«<｜fim▁hole｜>»{AFTER}«<｜fim▁end｜>»{GPT2}"
    ),
    "codegemma-fim-v1": f"«<bos>»«<|fim_prefix|>»{WHOLE}«<|fim_suffix|>»{AFTER}«<|fim_middle|>»",
    "granite-code-fim-v1": f"«<fim_prefix>»{ABOVE}«<fim_suffix>»{AFTER}«<fim_middle>»{GPT2}",
    "granite4-fim-v1": f"«<|fim_prefix|>»{ABOVE}«<|fim_suffix|>»{AFTER}«<|fim_middle|>»{GPT4}",
    "seedcoder-fim-v1": f"«<[fim-suffix]>»{AFTER}«<[fim-prefix]>»{ABOVE}«<[fim-middle]>»{GPT4}",
    "mellum-fim-v1": f"«<filename>»app/main.py\n«<fim_suffix>»{AFTER}«<fim_prefix>»{ABOVE}«<fim_middle>»{GPT2}",
    "codestral-fim-v1": f"«<s>»«[SUFFIX]»{AFTER}«[PREFIX]»{WHOLE}",
    "t5-span-v1": f"{WHOLE}«<extra_id_0>»{AFTER}",
    "left-to-right-v1": f"{ABOVE}{GPT2}",
}
FILL_WITH_CHUNKS = {
    "qwen-fim-v1": (
        "«<|repo_name|>»demo\n«<|file_sep|>»app/util.py\ndef g():\n    return 1\n«<|file_sep|>»b.py\nimport os\n"
        f"«<|file_sep|>»app/main.py\n{FILL['qwen-fim-v1']}"
    ),
    "starcoder2-fim-v1": (
        "«<repo_name>»demo«<file_sep>»app/util.py\ndef g():\n    return 1«<file_sep>»b.py\nimport os"
        f"«<file_sep>»«<fim_prefix>»app/main.py\n{ABOVE}«<fim_suffix>»{AFTER}«<fim_middle>»{GPT2}"
    ),
    "deepseek-fim-v1": (
        "«<｜begin▁of▁sentence｜>»«<｜fim▁begin｜>»#app/util.py\ndef g():\n    return 1\n#b.py\nimport os\n"
        f"#app/main.py\n{ABOVE}«<｜fim▁hole｜>»{AFTER}«<｜fim▁end｜>»{GPT2}"
    ),
    "mellum-fim-v1": (
        "«<filename>»app/util.py\ndef g():\n    return 1\n«<filename>»b.py\nimport os\n" + FILL["mellum-fim-v1"]
    ),
    "codestral-fim-v1": (
        f"«<s>»«[SUFFIX]»{AFTER}«[PREFIX]»+++++ app/util.py\ndef g():\n    return 1\n\n+++++ b.py\nimport os\n\n"
        f"+++++ app/main.py\n{WHOLE}"
    ),
}
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
INTENT = {
    "instruct-v1": "### Instruction:\nsort a list\n### Response:\n",
    "qwen-chat-v1": (
        f"«<|im_start|>»system\n{SYSTEM}«<|im_end|>»\n"
        "«<|im_start|>»user\nWrite python code: sort a list«<|im_end|>»\n«<|im_start|>»assistant\n```python\n"
    ),
    "qwen-chat-file-v1": (
        f"«<|im_start|>»system\n{SYSTEM}«<|im_end|>»\n"
        f"«<|im_start|>»user\nThis file is to be continued:\n```python\n{WHOLE}{AFTER}\n```\n"
        "Write the python code that comes next: sort a list«<|im_end|>»\n«<|im_start|>»assistant\n```python\n"
    ),
}
WITH_EXAMPLE = {
    "instruct-v1": ("### Instruction:\nadd\n### Response:\na + b\n\n### Instruction:\nsort a list\n### Response:\n"),
    "qwen-chat-v1": (
        f"«<|im_start|>»system\n{SYSTEM}«<|im_end|>»\n"
        "«<|im_start|>»user\nWrite python code: add«<|im_end|>»\n«<|im_start|>»assistant\n```python\n"
        "a + b\n```«<|im_end|>»\n"
        "«<|im_start|>»user\nWrite python code: sort a list«<|im_end|>»\n«<|im_start|>»assistant\n```python\n"
    ),
}


class OneTokenPerCharacter:
    def count_tokens(self, texts: object) -> list[int]:
        return [len(text) for text in texts]  # type: ignore[attr-defined]


def marked(segments: Prompt) -> str:
    return "".join(f"«{segment.text}»" if segment.special else segment.text for segment in segments)


def written(name: str, **options: object) -> str:
    built, _ = prompt.build(DOCUMENT, FORMATS[name], 2000, OneTokenPerCharacter(), **options)  # type: ignore[arg-type]
    return marked(built)


def test_every_format_has_its_string_here() -> None:
    assert {*FILL, *INTENT} == set(FORMATS)
    assert set(FILL_WITH_CHUNKS) == {name for name, form in FORMATS.items() if form.with_context}
    assert set(WITH_EXAMPLE) == {name for name, form in FORMATS.items() if form.answered}


@pytest.mark.parametrize("name", FILL)
def test_a_hole_is_written_as_the_family_was_trained(name: str) -> None:
    assert written(name) == FILL[name]


@pytest.mark.parametrize("name", FILL)
def test_a_hole_with_chunks_of_other_files(name: str) -> None:
    expected = FILL_WITH_CHUNKS.get(name, FILL[name])
    assert written(name, context=CHUNKS, repository="demo") == expected


@pytest.mark.parametrize("name", INTENT)
def test_a_sentence(name: str) -> None:
    assert written(name, intent="sort a list") == INTENT[name]


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_a_sentence_after_a_solved_one(name: str) -> None:
    assert written(name, intent="sort a list", shots=[Shot("add", "a + b")]) == WITH_EXAMPLE[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_the_same_after_it_was_stored_as_json(name: str) -> None:
    stored = msgspec.json.encode(FORMATS[name])
    assert msgspec.json.decode(stored, type=PromptFormat) == FORMATS[name]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.task is Task.FILL])
def test_no_text_of_a_format_looks_like_one_of_its_control_tokens(name: str) -> None:
    """A misspelt list of tokens would leave one in the literal text."""
    literal = [segment.text for segment in prompt_segments(name) if not segment.special]
    assert not [text for text in literal if "<" in text or "[" in text]


def prompt_segments(name: str) -> Prompt:
    built, _ = prompt.build(DOCUMENT, FORMATS[name], 2000, OneTokenPerCharacter(), context=CHUNKS, repository="demo")
    return built
