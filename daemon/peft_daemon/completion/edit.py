"""A part of a document changed as an instruction says, described or tested: asked as a chat, answered as code.

A small model follows a form better than a rule. So each question is short, the beginning of the answer is written for
it (a code fence, the opening of a comment), and the answer ends where that form does. The selection is shown without
its common indentation, which every line of the answer gets back. Where the answer goes is the editor's to decide.
"""

from __future__ import annotations

import re
import textwrap
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePosixPath

from peft_core.api_types import CompleteResponse, EditKind, EditRequest, FinishReason, Task, Timings
from peft_core.code.languages import language_id
from peft_core.code.lexical_rules import rules_of
from peft_core.errors import InvalidInput
from peft_core.privacy.values import secret_values
from peft_daemon.completion import prompt
from peft_daemon.completion.chat import ChatMessage, chat_prompt
from peft_daemon.completion.job import RawRequest
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.prompt import append_segment
from peft_daemon.completion.service import CompletionService
from peft_daemon.engines.base import GenerationChunk, Prompt, Segment

ROUTE = "edit"
"""Name of these requests in figures and decisions."""
SYSTEM = "You edit code. You do exactly what is asked, change nothing else, and answer with code only."
MIN_ANSWER_TOKENS = 160
TEST_TOKENS = 384
ANSWER_GROWTH = 2
"""The answer may be so many times as long as the selection."""
MAX_ANSWER_TOKENS = 1024
MAX_CONTEXT_TOKENS = 256
"""Of the document around the selection; a slow machine reads that in a few seconds."""
CHARACTERS_PER_TOKEN = 2.8
"""Less than usual, so that what is shown around the selection does fit."""
BEFORE_SHARE = 0.75
DOCSTRING_COLUMNS = 79
FRAMEWORKS = {
    "python": "pytest",
    "javascript": "the functions test and expect of Jest",
    "typescript": "the functions test and expect of Jest",
    "go": "the package testing",
    "rust": "#[test]",
    "java": "JUnit 5",
}
"""What tests are written with, by language; the model chooses for others."""
DOC_BLOCKS = frozenset(
    {"javascript", "javascriptreact", "typescript", "typescriptreact", "java", "c", "cpp", "php", "kotlin", "scala"}
)
"""Languages whose functions are described in ``/** … */``."""
DOC_LINES = {"rust": "///", "csharp": "///", "swift": "///", "dart": "///", "lua": "---"}
"""Languages whose functions are described in lines that begin with another mark than their comments."""

_EXAMPLE = re.compile(r"\n[ \t]*(?:\*|#|//[/!]?|--+)?[ \t]*(?:#+[ ]*)?(?:Examples?\b|Usage\b|>>>).*", re.DOTALL)
"""An example in a comment and all below it; a small model invents them."""


@dataclass(frozen=True)
class EditForm:
    """How a kind of edit is asked, and how its answer begins and ends."""

    question: str
    opening: str
    """Written for the model; a part of its answer."""
    stop: tuple[str, ...]
    fence: str
    """What encloses code, longer than any such mark in the code itself."""


def edit_form(asked: EditRequest, selection: str) -> EditForm:
    """Return how a request is asked; ``selection`` is its text without indentation."""
    language = language_id(asked.language)
    longest = max((len(found) for found in re.findall(r"`{3,}", selection)), default=2)
    fence = "`" * (longest + 1)
    begin, end = f"{fence}{language}\n", f"\n{fence}"
    code = f"{begin}{selection}{end}"
    if asked.kind is EditKind.DOCSTRING:
        opening, stop = _docstring_opening(language, asked.name)
        question = f"{code}\n\nDocument this function in one or two sentences, without an example."
        return EditForm(question, f"{begin}{opening}", (end, *stop), fence)
    if asked.kind is EditKind.TEST:
        framework = FRAMEWORKS.get(language.removesuffix("react"))
        using = f" Use {framework}." if framework else ""
        what = f"method `{asked.name}` of `{asked.owner}`" if asked.owner else f"function `{asked.name}`"
        question = f"{code}\n\nWrite one short test of the {what}, with at most three assertions.{using}"
        return EditForm(question, f"{begin}{_test_opening(asked, language)}", (end,), fence)
    question = f"{code}\n\n{asked.instruction.strip()}"
    return EditForm(question, begin, (end,), fence)


def _docstring_opening(language: str, name: str) -> tuple[str, tuple[str, ...]]:
    if language == "python":
        return '"""', ('"""',)
    if language in DOC_BLOCKS:
        return "/**\n *", ("*/",)
    mark = DOC_LINES.get(language) or rules_of(language).line_comment or "//"
    return f"{mark} {name}" if language == "go" else mark, ()


def _test_opening(asked: EditRequest, language: str) -> str:
    """Return how a file of tests begins, as far as that can be known."""
    stem = PurePosixPath((asked.path or "").replace("\\", "/")).stem
    imported = asked.owner or asked.name
    if not stem or not asked.name.isidentifier() or not imported.isidentifier():
        return ""
    if language == "python" and stem.isidentifier():
        return f"from {stem} import {imported}\n\n\ndef test_{asked.name}"
    if language in ("javascript", "javascriptreact", "typescript", "typescriptreact"):
        return f'import {{ {imported} }} from "./{stem}";\n\ntest("{asked.name}'
    if language == "go" and (package := re.search(r"^package (\w+)", asked.before, re.MULTILINE)):
        name = asked.name[:1].upper() + asked.name[1:]
        return f'package {package[1]}\n\nimport "testing"\n\nfunc Test{name}(t *testing.T) {{'
    return ""


class AnswerReader:
    """Takes the code out of what the model writes, a whole line at a time; ``text`` only ever grows."""

    def __init__(self, form: EditForm, *, indentation: str = "", first_indentation: str = "") -> None:
        """Every line gets ``indentation``; the first is expected to have ``first_indentation`` besides."""
        self._fence, self._indentation, self._first = form.fence, indentation, first_indentation
        self._unread = form.opening.removeprefix(form.opening.partition("\n")[0] + "\n")
        self._blank = 0
        self._surplus: int | None = None
        self.ended = False
        """What comes now is not part of the answer."""
        self.text = ""

    def feed(self, piece: str) -> str:
        """Read on; returns what the text has grown by."""
        before = len(self.text)
        *lines, self._unread = (self._unread + piece).split("\n")
        for line in lines:
            self._line(line)
        return self.text[before:]

    def finish(self) -> str:
        """Read the rest, for an answer that is whole; returns what the text has grown by."""
        return self.feed("\n")

    def _line(self, line: str) -> None:
        line = line.rstrip()
        is_fence = line.startswith(self._fence)
        if self.ended or (is_fence and not self.text):
            return
        if is_fence:
            self.ended = True
        elif not line:
            self._blank += bool(self.text)
        else:
            space = len(line) - len(line.lstrip())
            if self._surplus is None:
                self._surplus = max(0, space - len(self._first))
            line = self._indentation + line[min(self._surplus, space) :]
            self.text += ("\n" * (self._blank + 1) if self.text else "") + line
            self._blank = 0


class DocstringReader(AnswerReader):
    """Takes the documentation comment out of the answer, closes it and breaks its long lines."""

    def __init__(self, form: EditForm, language: str) -> None:
        super().__init__(form)
        self._language = language_id(language)
        self._mark = DOC_LINES.get(self._language) or rules_of(self._language).line_comment or "//"

    def finish(self) -> str:
        """Return the whole comment: no part of it is certain before."""
        super().finish()
        self.text = self._comment(self.text)
        return self.text

    def feed(self, piece: str) -> str:
        """Read on; returns nothing."""
        super().feed(piece)
        in_lines = bool(self.text) and self._language != "python" and self._language not in DOC_BLOCKS
        self.ended = self.ended or (in_lines and not self.text.rpartition("\n")[2].startswith(self._mark))
        return ""

    def _comment(self, text: str) -> str:
        width = DOCSTRING_COLUMNS
        if example := _EXAMPLE.search(text):
            text = text[: example.start()]
        if self._language == "python":
            prose = [each.rstrip() for each in text.strip().removeprefix('"""').strip().split("\n")]
            lines = list(textwrap.dedent("\n".join(prose[1:])).split("\n")) if prose[1:] else []
            wrapped = [*_wrapped(prose[0], width), *(part for each in lines for part in _wrapped(each, width))]
            if not any(wrapped):
                return ""
            body = "\n".join(wrapped)
            return f'"""{body}\n"""' if len(wrapped) > 1 else f'"""{body}"""'
        if self._language in DOC_BLOCKS:
            prose = [re.sub(r"^\s*(/\*\*|\*(?!/))? ?", "", each) for each in text.removesuffix("*/").split("\n")]
            lines = [part for each in prose for part in _wrapped(each, width)]
            while lines and not lines[0]:
                del lines[0]
            while lines and not lines[-1]:
                del lines[-1]
            return "\n".join(["/**", *(f" * {each}".rstrip() for each in lines), " */"]) if lines else ""
        found: list[str] = []
        for line in text.split("\n"):
            if not line.startswith(self._mark):
                break
            found += _wrapped(line.removeprefix(self._mark).strip(), width)
        while found and not found[-1]:
            del found[-1]
        return "\n".join(f"{self._mark} {each}".rstrip() for each in found)


def _wrapped(line: str, width: int) -> list[str]:
    """Break a line of prose; what is indented keeps its indentation."""
    space = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=space, break_long_words=False, break_on_hyphens=False) or [""]


@dataclass(frozen=True)
class WrittenEdit:
    """The prompt of an edit, and how long its answer may be."""

    prompt: Prompt
    max_tokens: int


async def edit(service: CompletionService, asked: EditRequest) -> AsyncGenerator[str | CompleteResponse, None]:
    """Yield whole lines of the answer as they are written, then the CompleteResponse with all of it.

    Closing the generator stops the model. Raises InvalidInput for what cannot be asked, and as ``service.raw`` does.
    """
    model = service.models[Task.INTENT]
    selection = textwrap.dedent(asked.selection.replace("\r\n", "\n")).rstrip("\n")
    _require_askable(asked, selection)
    form = edit_form(asked, selection)
    written = await _written(model, asked, form, selection)
    raw = RawRequest(
        chat=written.prompt,
        max_tokens=written.max_tokens,
        path=asked.path,
        stop=(*model.chat_format.stop, *form.stop),
    )
    reader = _reader(asked, form, selection)
    chunk = GenerationChunk(reason=FinishReason.CANCELLED)
    async with aclosing(service.raw(raw, model=model, route=ROUTE)) as chunks:
        async for chunk in chunks:
            if grown := reader.feed(chunk.text):
                yield grown
            if reader.ended:
                break
    reason = FinishReason.STOP if reader.ended else chunk.reason or FinishReason.CANCELLED
    if reason is FinishReason.STOP and (grown := reader.finish()):
        yield grown
    yield CompleteResponse(
        id=uuid.uuid4().hex,
        text=reader.text,
        finish_reason=reason,
        task=Task.INTENT,
        model=chunk.model or model.id,
        adapter=None,
        timings=chunk.timings or Timings(),
    )


def _require_askable(asked: EditRequest, selection: str) -> None:
    if not selection.strip():
        raise InvalidInput("nothing is selected", fix="Select the lines to be changed")
    if asked.kind is EditKind.CHANGE and not asked.instruction.strip():
        raise InvalidInput("there is no instruction", fix="Say what is to be done with the selection")
    if asked.kind is EditKind.CHANGE and secret_values(selection):
        raise InvalidInput(
            "the selection holds what looks like a secret",
            why="the model is not shown secrets, so it could not write them again",
            fix="Select lines without it",
        )


def _reader(asked: EditRequest, form: EditForm, selection: str) -> AnswerReader:
    if asked.kind is EditKind.DOCSTRING:
        return DocstringReader(form, asked.language)
    if asked.kind is EditKind.TEST:
        return AnswerReader(form)
    first = next(line for line in asked.selection.replace("\r\n", "\n").split("\n") if line.strip())
    shown = next(line for line in selection.split("\n") if line.strip())
    common = len(first) - len(shown)
    return AnswerReader(form, indentation=first[:common], first_indentation=shown[: len(shown) - len(shown.lstrip())])


async def _written(model: ModelInstance, asked: EditRequest, form: EditForm, selection: str) -> WrittenEdit:
    """Write the question with what fits of the document around it.

    Raises InvalidInput where the selection and an answer of its length do not fit.
    """
    around = ""
    bare = chat_prompt(_messages(form, around), model.chat_format)
    own, shown = await model.engine.count_tokens(["".join(each.text for each in bare if not each.special), selection])
    usual = TEST_TOKENS if asked.kind is EditKind.TEST else MIN_ANSWER_TOKENS
    least, most = shown + 32, max(usual, ANSWER_GROWTH * shown)
    free = model.context_tokens - own - 2 * len(bare) - prompt.MARGIN_TOKENS
    if free < least:
        raise InvalidInput(
            f"the selection has about {shown} tokens",
            why=f"question and answer do not fit into the model's context of {model.context_tokens}",
            fix="Select fewer lines, or set `context_tokens` higher",
        )
    answer = min(asked.max_tokens or most, most, MAX_ANSWER_TOKENS, free)
    room = int(min(free - answer, MAX_CONTEXT_TOKENS) * CHARACTERS_PER_TOKEN)
    messages = _messages(form, _around(asked, room))
    segments = list(chat_prompt(messages, model.chat_format))
    append_segment(segments, Segment(form.opening))
    return WrittenEdit(tuple(segments), answer)


def _messages(form: EditForm, around: str) -> list[ChatMessage]:
    shown = [ChatMessage("user", around), ChatMessage("assistant", "I have read it.")] if around else []
    return [ChatMessage("system", SYSTEM), *shown, ChatMessage("user", form.question)]


def _around(asked: EditRequest, room: int) -> str:
    """Return what is shown of the document around the selection, in whole lines."""
    if asked.kind is EditKind.DOCSTRING or room <= 0:
        return ""
    before = asked.before[-int(room * BEFORE_SHARE) :]
    if len(before) < len(asked.before):
        before = before.partition("\n")[2]
    if not before.strip():
        return ""
    return f"This stands above, only to be read:\n```\n{before.strip()}\n```"
