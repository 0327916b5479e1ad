"""What the real model answered (``tests/fixtures/completions``), and what of it is shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from fakes.scripted_engines import ScriptedEngine
from fixtures.completions.cases import CASES, FILL, Case
from peft_core.api_types import FinishReason, Task
from peft_core.code.document import Document
from peft_daemon.completion import formats
from peft_daemon.completion.job import CompletionJob
from support.completion_stream import streamed

RECORDED = Path(__file__).parents[2] / "fixtures" / "completions" / "recorded.json"
ANSWERS = json.loads(RECORDED.read_text(encoding="utf-8"))["answers"]


async def complete(case: Case, size: int = 4) -> tuple[Document, str, int, FinishReason]:
    """The case's completion when the recorded answer arrives in pieces of ``size`` characters."""
    form = formats.get(case.format)
    recorded = ANSWERS[case.name]
    answer: str = recorded["answer"]
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    engine = ScriptedEngine(pieces, FinishReason(recorded["reason"]), constrains=False)
    fills = form.task is Task.FILL
    document = Document.normalized(case.prefix, case.suffix, language=case.language) if fills else Document("")
    what = CompletionJob(
        document=document, format=form, context_tokens=2048, max_tokens=64, intent="" if fills else case.source
    )
    parts, end = await streamed(engine, what)
    assert "".join(parts) == end.text
    return document, end.text, end.replace_after, end.reason


def in_place(case: Case, text: str, replace_after: int) -> str:
    """The case's document with the completion in it."""
    return case.prefix + text + case.suffix[replace_after:]


def test_every_case_is_recorded_and_nothing_else() -> None:
    assert sorted(ANSWERS) == sorted(case.name for case in CASES)
    assert len(ANSWERS) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_text_does_not_depend_on_how_the_answer_arrives(case: Case) -> None:
    whole = await complete(case, 10_000)
    assert await complete(case, 1) == whole
    assert await complete(case, 5) == whole


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_no_fence_and_no_explanation_is_shown(case: Case) -> None:
    _, text, _, _ = await complete(case)
    assert "```" not in text
    assert "Example usage" not in text or case.format != "qwen-fim-v1"
    assert not text.endswith((" ", "\n", "\t"))


@pytest.mark.parametrize("case", [case for case in CASES if case.whole], ids=lambda case: case.name)
async def test_the_document_is_correct_python_with_the_completion_in_it(case: Case) -> None:
    _, text, replace_after, reason = await complete(case)
    if text and reason is FinishReason.STOP:
        ast.parse(in_place(case, text, replace_after))


@pytest.mark.parametrize("case", FILL, ids=lambda case: case.name)
async def test_the_lines_that_follow_are_not_repeated(case: Case) -> None:
    document, text, _, _ = await complete(case)
    lines = [line.rstrip() for line in (document.line_before + text).split("\n")]
    if document.next_lines and len(document.next_lines[0].strip()) > 10:
        assert document.next_lines[0].rstrip() not in lines


SHOWN: dict[str, str] = {
    "body-average": "return sum(values) / len(values) if values else 0",
    "body-after-colon": "\n    return number % 2 == 0",
    "body-guard": 'return "Error: Division by zero"',
    "body-nested": "result.extend(flatten(item))",
    "body-with": "json.dump(data, file, indent=4)",
    "body-try": "FileNotFoundError:",
    "body-cursor-at-margin": "    return a + b",
    "body-async": "results = await asyncio.gather(*tasks)\n    return results",
    "body-lambda": "pair[0]",
    "body-generator": "yield number",
    "line-return": "len(self._items)",
    "line-assignment": "width * height",
    "line-condition": "low:",
    "line-attribute": "_items[-1]",
    "line-half-word": "urn len(self._items) == 0",
    "line-import": "Path",
    "line-for": "zip(names, ages):",
    "line-comprehension": "x**2 for x in numbers",
    "line-text-follows": "'Hello'",
    "line-colon-follows": "x == 0",
    "line-decorator": "lru_cache(maxsize=None)",
    "line-complete": "",
    "call-arguments": "left, right",
    "call-unclosed": "left, right))",
    "call-method": "words",
    "call-keyword": "True, text=True",
    "list-items": "'Wednesday',\n    'Thursday',\n    'Friday',\n    'Saturday',\n    'Sunday'",
    "subscript": "-1",
    "string-message": "Age cannot be negative",
    "string-f": "Name: {name}, Age: {age}",
    "string-unclosed": ' be a non-negative integer")',
    "docstring-closed": "",
    "docstring-open": 'Return the greatest common divisor of a and b."""',
    "comment": "Euclidean algorithm to find the greatest common divisor",
    "class-init": "self.x = x\n        self.y = y",
    "class-dataclass": "age: int\n    city: str",
    "class-property": "return 3.14159 * self.radius ** 2",
    "suffix-same-statement": "total += value",
    "suffix-body-follows": "def __init__(self, x, y):",
    "tabs": "result += price",
    "crlf": "result += price",
    "end-of-file": "main()",
    "empty-file": "",
    "unicode": "grüße:",
    "javascript": "total += value;",
    "comment-asks": "return re.findall(r'\\b\\d{4}-\\d{2}-\\d{2}\\b', text)",
    "docstring-asks": "text = text.lower()\n    return text == text[::-1]",
}
"""Read one by one and found good; after recording anew, read what has changed."""


@pytest.mark.parametrize("name", sorted(SHOWN))
async def test_what_is_shown(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    _, text, _, _ = await complete(case)
    assert text == SHOWN[name]
