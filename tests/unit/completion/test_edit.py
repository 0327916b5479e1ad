"""Edits: how they are asked, and that what the model writes becomes exactly the code that is proposed."""

from __future__ import annotations

import re
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_engines import ScriptedEngine
from peft_core.api_types import CompleteResponse, EditKind, EditRequest, FinishReason
from peft_core.errors import InvalidInput
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion.edit import AnswerReader, DocstringReader, edit, edit_form
from support.one_model import one_model_service
from support.tiny_entry import tiny_entry

SUM = "def total(xs):\n    return sum(xs)"


async def answered(
    tmp_path: Path, asked: EditRequest, *pieces: str, reason: FinishReason = FinishReason.STOP
) -> tuple[list[str], CompleteResponse, str]:
    """What is streamed, the answer, and the prompt."""
    engine = ScriptedEngine(list(pieces), reason=reason)
    service = one_model_service(tiny_entry(b""), engine, AdapterRegistry(tmp_path))
    async with aclosing(edit(service, asked)) as items:
        found = [item async for item in items]
    *streamed, response = found
    assert isinstance(response, CompleteResponse)
    assert engine.request is not None
    return [str(each) for each in streamed], response, "".join(each.text for each in engine.request.prompt)


async def test_the_answer_is_streamed_by_lines_and_gets_its_indentation_back(tmp_path: Path) -> None:
    asked = EditRequest(
        selection="    def area(self):\n        return self.w * self.h\n",
        before="class Box:\n",
        instruction="Return a float",
    )
    streamed, response, prompt = await answered(
        tmp_path, asked, "def area", "(self):\n    return ", "float(self.w\n\n", " * self.h)", "\n"
    )
    assert response.text == "    def area(self):\n        return float(self.w\n\n     * self.h)"
    assert "".join(streamed) == response.text
    assert len(streamed) > 1
    assert response.finish_reason is FinishReason.STOP
    assert "def area(self):\n    return self.w * self.h\n```\n\nReturn a float" in prompt
    assert "class Box:" in prompt
    assert prompt.endswith("\n```python\n")


@given(st.lists(st.sampled_from(["", "a = 1", "  b(", "    c", "\td", "```", "e  "]), max_size=8), st.integers(1, 5))
def test_however_the_answer_is_cut_into_pieces_it_is_the_same_and_only_grows(lines: list[str], size: int) -> None:
    form = edit_form(EditRequest(selection=SUM, instruction="x"), SUM)
    text = "\n".join(lines)
    whole = AnswerReader(form, indentation="  ")
    whole.feed(text)
    whole.finish()
    cut, seen = AnswerReader(form, indentation="  "), ""
    for start in range(0, len(text), size):
        seen += cut.feed(text[start : start + size])
        assert cut.text == seen
    seen += cut.finish()
    assert seen == cut.text == whole.text
    assert "```" not in seen


def test_a_fence_that_the_model_opens_or_closes_by_itself_is_no_code() -> None:
    form = edit_form(EditRequest(selection=SUM, instruction="x"), SUM)
    reader = AnswerReader(form)
    reader.feed("```python\nx = 1\n```\nThis sets x to one.\n")
    reader.finish()
    assert reader.text == "x = 1"


def test_code_with_fences_of_its_own_is_enclosed_in_longer_ones() -> None:
    selection = 'TEXT = """\n```\ncode\n```\n"""'
    form = edit_form(EditRequest(selection=selection, instruction="x"), selection)
    assert form.fence == "````"
    reader = AnswerReader(form)
    reader.feed(f"{selection}\n````\n")
    assert reader.text == selection


def test_what_the_model_indents_as_it_stood_in_the_file_is_not_indented_twice() -> None:
    form = edit_form(EditRequest(selection=SUM, instruction="x"), SUM)
    reader = AnswerReader(form, indentation="    ")
    reader.feed("    def f():\n        pass\n")
    assert reader.text == "    def f():\n        pass"


@pytest.mark.parametrize(
    ("language", "written", "comment"),
    [
        ("python", "Return the sum.", '"""Return the sum."""'),
        ("python", "Return the sum.\n\n    Of all.\n    ", '"""Return the sum.\n\nOf all.\n"""'),
        ("python", "Return the sum.\n\nExample:\n>>> total([1])\n1\n", '"""Return the sum."""'),
        ("javascript", " The sum.\n *\n * @param xs numbers\n ", "/**\n * The sum.\n *\n * @param xs numbers\n */"),
        ("go", " is the sum.\nfunc total() {\n", "// total is the sum."),
        ("rust", " The sum.\n///\n/// # Examples\n/// x\nfn f() {}\n", "/// The sum."),
        ("ruby", " The sum of\n# all.\ndef f\n", "# The sum of\n# all."),
    ],
)
def test_a_documentation_comment_is_written_as_its_language_has_it(language: str, written: str, comment: str) -> None:
    form = edit_form(EditRequest(selection=SUM, kind=EditKind.DOCSTRING, name="total", language=language), SUM)
    reader = DocstringReader(form, language)
    assert reader.feed(written) == ""
    reader.finish()
    assert reader.text == comment


def test_a_long_line_of_documentation_is_broken() -> None:
    form = edit_form(EditRequest(selection=SUM, kind=EditKind.DOCSTRING, language="java"), SUM)
    reader = DocstringReader(form, "java")
    reader.feed(" word" * 60)
    reader.finish()
    assert max(map(len, reader.text.split("\n"))) <= 82
    assert reader.text.count("word") == 60


async def test_a_test_begins_with_what_is_known_of_its_file(tmp_path: Path) -> None:
    asked = EditRequest(selection=SUM, kind=EditKind.TEST, name="total", path="/project/sums.py")
    _, response, prompt = await answered(tmp_path, asked, "():\n", "    assert total([1]) == 1\n")
    assert response.text == ("from sums import total\n\n\ndef test_total():\n    assert total([1]) == 1")
    assert "pytest" in prompt
    method = EditRequest(selection=SUM, kind=EditKind.TEST, name="total", owner="Cart", path="/project/sums.py")
    assert "from sums import Cart\n\n\ndef test_total" in edit_form(method, SUM).opening


async def test_an_answer_that_comes_to_no_end_says_so(tmp_path: Path) -> None:
    asked = EditRequest(selection=SUM, instruction="Unroll it")
    _, response, _ = await answered(tmp_path, asked, "x = 1\nx = ", reason=FinishReason.LENGTH)
    assert (response.text, response.finish_reason) == ("x = 1", FinishReason.LENGTH)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (EditRequest(selection=" \n", instruction="x"), "nothing is selected"),
        (EditRequest(selection=SUM), "no instruction"),
        (EditRequest(selection=f'{SUM}\npassword = "hunter2-and-more-42"', instruction="x"), "looks like a secret"),
        (EditRequest(selection="x = 1\n" * 3000, instruction="x"), "do not fit"),
    ],
)
async def test_what_cannot_be_asked_is_refused_and_the_model_not_asked(
    tmp_path: Path, asked: EditRequest, message: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        await answered(tmp_path, asked, "x")


async def test_of_a_file_with_secrets_nothing_is_shown(tmp_path: Path) -> None:
    engine = ScriptedEngine(["x"])
    service = one_model_service(tiny_entry(b""), engine, AdapterRegistry(tmp_path))
    asked = EditRequest(selection="A=1", instruction="x", path="/project/.env")
    async with aclosing(edit(service, asked)) as items:
        (response,) = [item async for item in items]
    assert isinstance(response, CompleteResponse)
    assert response.finish_reason is FinishReason.OFF
    assert engine.request is None
