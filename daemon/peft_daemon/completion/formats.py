"""Prompt formats: how each model family wants a hole, or a sentence, written down.

A format is data with an id, shared by serving, tuning and evaluation; an adapter's manifest names the one it was
trained on. ``formats.toml`` has those of the known families. Does not cover budgets, windows or documents (``prompt``),
nor which format a model's file needs (``detection``).

A fill-in-the-middle format has the order in which its family was trained: prefix, suffix, middle, or suffix, prefix,
middle. Where the tokenizer allows it, the last lines before the cursor (``PromptField.TYPED``) come after the middle
token: to the model they are the beginning of its own answer, and a keystroke only appends to the prompt, so that the
engine's KV cache holds all of it but the last tokens. A format without ``PromptField.TYPED`` has those lines in
``PromptField.PREFIX``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, TypeVar

import msgspec

from peft_core.api_types import Task
from peft_core.errors import InvalidInput, NotFound
from peft_daemon.engines.base import Segment
from peft_daemon.models.catalogue import PromptFormats


class PromptField(StrEnum):
    """A place in a format that a request fills."""

    PREFIX = "prefix"
    """Text before the cursor; without the last lines where the format has ``TYPED``."""
    SUFFIX = "suffix"
    """Text after the cursor."""
    TYPED = "typed"
    """The last lines up to the cursor, the one being typed among them."""
    INTENT = "intent"
    """The sentence that asks for code."""
    LANGUAGE = "language"
    """Name of the programming language."""
    REPOSITORY = "repository"
    """Name of the repository."""
    CONTEXT = "context"
    """All chunks of other files, each written as ``PromptFormat.chunk``."""
    PATH = "path"
    """Path of the document, or in ``PromptFormat.chunk`` of the chunk's file."""
    TEXT = "text"
    """In ``PromptFormat.chunk``: the chunk's text."""


Piece = Segment | PromptField


@dataclass(frozen=True)
class PromptFormat:
    """One way to write a prompt. ``msgspec.json`` encodes and decodes it without loss.

    ``end`` is the control token after which the answer is over: tuning appends it to the target; empty means the
    tokenizer's own end-of-sequence token. ``stop`` are strings at which an engine cuts the answer, for models that
    write a control token instead of ending. ``with_context`` replaces ``pieces`` when there are chunks of other
    files; empty means that the family has no such form and chunks are left out.
    """

    id: str
    task: Task
    pieces: tuple[Piece, ...]
    end: str = ""
    stop: tuple[str, ...] = ()
    with_context: tuple[Piece, ...] = ()
    question: int = 0
    """Index of the piece with which a question begins; what stands before it is written once."""
    answered: tuple[Piece, ...] = ()
    """What follows an answer when another question comes after it; empty: the format shows no solved examples."""
    chunk: tuple[Piece, ...] = ()
    in_file: str = ""
    """Of a format for sentences: id of the one that also shows the file in which the sentence stands, if any."""
    pretokenizer: str = ""
    """Pattern of the stretches of text within which the family's tokenizer makes tokens; see ``prompt.held_back``."""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """All control tokens that a prompt of this format, or the end of its answer, may hold."""
        pieces = (*self.pieces, *self.with_context, *self.chunk, *self.answered)
        texts = [piece.text for piece in pieces if isinstance(piece, Segment) and piece.special]
        return tuple(dict.fromkeys([*texts, *([self.end] if self.end else [])]))


_LETTER, _OTHER = r"[^\W\d_]", r"(?:[^\s\w]|_)"
WORDS = {
    "": "",
    "gpt4": rf"(?:[^\r\n\w]|_)?{_LETTER}+|\d| ?{_OTHER}+|\s+(?!\S)|\s+",
    "gpt2": rf" ?{_LETTER}+| ?\d+| ?{_OTHER}+|\s+(?!\S)|\s+",
}
"""Patterns for ``PromptFormat.pretokenizer``, by the tokenizer whose way of splitting the family took over."""

_FIELDS = {f"{{{field}}}": field for field in PromptField}


Field = TypeVar("Field", bound=StrEnum)


def cut(text: str, tokens: Iterable[str], fields: Mapping[str, Field]) -> tuple[Segment | Field, ...]:
    """Cut ``text`` at control tokens and at the names of fields; what is between them is literal text.

    Where several of these begin at the same place the longest counts, as it does for a tokenizer.
    """
    special = {token for token in tokens if token and token in text}
    names = sorted(special | fields.keys(), key=len, reverse=True)
    if not names:
        return (Segment(text),) if text else ()
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
    # Every second part is what was split at; control tokens go first, as no text may hide one.
    return tuple(
        (Segment(part, special=True) if part in special else fields[part]) if index % 2 else Segment(part)
        for index, part in enumerate(parts)
        if part
    )


class FormatEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of ``formats.toml``, whose head explains the fields."""

    id: str
    task: Task
    family: str
    source: str
    prompt: str
    tokens: tuple[str, ...] = ()
    once: str = ""
    with_context: str = ""
    chunk: str = ""
    answered: str = ""
    end: str = ""
    stop: tuple[str, ...] = ()
    words: str = ""
    in_file: str = ""
    pretokenizers: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()

    def to_format(self) -> PromptFormat:
        """The format with its texts cut into pieces."""
        once = self._cut(self.once)
        return PromptFormat(
            id=self.id,
            task=self.task,
            pieces=(*once, *self._cut(self.prompt)),
            end=self.end,
            stop=self.stop,
            with_context=self._cut(self.with_context),
            question=len(once),
            answered=self._cut(self.answered),
            chunk=self._cut(self.chunk),
            in_file=self.in_file,
            pretokenizer=WORDS[self.words],
        )

    def _cut(self, text: str) -> tuple[Piece, ...]:
        return cut(text, self.tokens, _FIELDS)


class _FormatFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    formats: tuple[FormatEntry, ...]


def _read_entries() -> tuple[FormatEntry, ...]:
    text = resources.files("peft_daemon.completion").joinpath("formats.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _FormatFile).formats


ENTRIES = _read_entries()
FORMATS: Mapping[str, PromptFormat] = {entry.id: entry.to_format() for entry in ENTRIES}


LEFT_TO_RIGHT = FORMATS["left-to-right-v1"]
"""Continues the text before the cursor, for models that cannot fill in."""


def of_model(ids: PromptFormats, task: Task) -> PromptFormat:
    """The format in which a model is asked for a task; raises NotFound for an unknown id."""
    format_id = ids.fill if task is Task.FILL else ids.intent
    return find(ids, format_id) or get(format_id)


def find(ids: PromptFormats, format_id: str) -> PromptFormat | None:
    """The format with this id, of the model's own or of all, or None; raises InvalidInput where it is damaged."""
    own = ids.own.get(format_id)
    if own is None:
        return FORMATS.get(format_id)
    try:
        return msgspec.convert(own, PromptFormat)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"the model's prompt format '{format_id}' is damaged",
            why=str(error),
            fix="Remove the model, and add it again",
        ) from None


def store(prompt_format: PromptFormat) -> dict[str, Any]:
    """Write a format that only one model has, for ``PromptFormats.own``."""
    return {prompt_format.id: msgspec.to_builtins(prompt_format)}


def get(format_id: str) -> PromptFormat:
    """The format with this id; raises NotFound, naming the known ids."""
    if format_id not in FORMATS:
        raise NotFound(
            f"no prompt format '{format_id}'",
            why=f"known formats: {', '.join(sorted(FORMATS))}",
            fix="Correct the id in the model catalogue or the adapter's manifest",
        )
    return FORMATS[format_id]
