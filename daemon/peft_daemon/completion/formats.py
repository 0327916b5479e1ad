"""Prompt formats: how each model family wants a hole, or a sentence, written down.

A format is data with an id, shared by serving, tuning and evaluation; an adapter's manifest names the one it was
trained on. Does not cover budgets, windows or documents: see ``prompt``.

The order of the fill-in-the-middle formats is prefix, suffix, middle, as the families were trained. Where the
tokenizer allows it, the last lines before the cursor (``Slot.TYPED``) come after the middle token: to the model they
are the beginning of its own answer, and a keystroke only appends to the prompt, so that the engine's KV cache holds
all of it but the last tokens. A format without ``Slot.TYPED`` has those lines in ``Slot.PREFIX``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from peft_core.api_types import Task
from peft_core.errors import NotFound
from peft_daemon.engines.base import Segment


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
    """One way to write a prompt.

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


_LETTER, _OTHER = r"[^\W\d_]", r"(?:[^\s\w]|_)"
_GPT4_WORDS = rf"(?:[^\r\n\w]|_)?{_LETTER}+|\d| ?{_OTHER}+|\s+(?!\S)|\s+"
_GPT2_WORDS = rf" ?{_LETTER}+| ?\d+| ?{_OTHER}+|\s+(?!\S)|\s+"


def _control(text: str) -> Segment:
    return Segment(text, special=True)


_NEWLINE = Segment("\n")


def _qwen_fim() -> PromptFormat:
    """Qwen2.5-Coder technical report (arXiv 2409.12186), sections 2.1 and 3.1."""
    prefix, suffix, middle = (_control(f"<|fim_{name}|>") for name in ("prefix", "suffix", "middle"))
    file = _control("<|file_sep|>")
    hole = (prefix, PromptField.PREFIX, suffix, PromptField.SUFFIX, middle, PromptField.TYPED)
    others = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return PromptFormat(
        id="qwen-fim-v1",
        task=Task.FILL,
        pieces=hole,
        end="<|endoftext|>",
        stop=(prefix.text, suffix.text, middle.text, *others),
        with_context=(
            *(_control("<|repo_name|>"), PromptField.REPOSITORY, _NEWLINE, PromptField.CONTEXT),
            *(file, PromptField.PATH, _NEWLINE, *hole),
        ),
        chunk=(file, PromptField.PATH, _NEWLINE, PromptField.TEXT, _NEWLINE),
        pretokenizer=_GPT4_WORDS,
    )


def _starcoder2_fim() -> PromptFormat:
    """StarCoder2 (arXiv 2402.19173), section 5: the path stands inside the prefix; no newline after the name."""
    prefix, suffix, middle = (_control(f"<fim_{name}>") for name in ("prefix", "suffix", "middle"))
    file = _control("<file_sep>")
    tail = (PromptField.PREFIX, suffix, PromptField.SUFFIX, middle, PromptField.TYPED)
    return PromptFormat(
        id="starcoder2-fim-v1",
        task=Task.FILL,
        pieces=(prefix, *tail),
        end="<|endoftext|>",
        stop=(prefix.text, suffix.text, middle.text, "<fim_pad>", "<repo_name>", "<file_sep>", "<|endoftext|>"),
        with_context=(
            *(_control("<repo_name>"), PromptField.REPOSITORY, PromptField.CONTEXT),
            *(file, prefix, PromptField.PATH, _NEWLINE, *tail),
        ),
        chunk=(file, PromptField.PATH, _NEWLINE, PromptField.TEXT),
        pretokenizer=_GPT2_WORDS,
    )


def _codellama_fim() -> PromptFormat:
    """Code Llama (arXiv 2308.12950), section 2.3.

    Its SentencePiece tokenizer writes the word boundary ``▁`` into the control tokens' names and puts a space before
    every text it tokenizes. After the middle token that space would be one the file does not have, so the last lines
    stay in the prefix. The family never saw several files in one prompt.
    """
    begin, prefix, suffix, middle = (_control(text) for text in ("<s>", "▁<PRE>", "▁<SUF>", "▁<MID>"))
    return PromptFormat(
        id="codellama-fim-v1",
        task=Task.FILL,
        pieces=(begin, prefix, PromptField.PREFIX, suffix, PromptField.SUFFIX, middle),
        end="▁<EOT>",
        stop=("<EOT>", "<PRE>", "<SUF>", "<MID>", "</s>"),
    )


def _deepseek_fim() -> PromptFormat:
    """DeepSeek-Coder (arXiv 2401.14196), section 3.1.2; other files are plain text below ``#path`` in the prefix."""
    begin = _control("<｜begin▁of▁sentence｜>")
    prefix, hole, end = (_control(f"<｜fim▁{name}｜>") for name in ("begin", "hole", "end"))
    tail = (PromptField.PREFIX, hole, PromptField.SUFFIX, end, PromptField.TYPED)
    return PromptFormat(
        id="deepseek-fim-v1",
        task=Task.FILL,
        pieces=(begin, prefix, *tail),
        end="<｜end▁of▁sentence｜>",
        stop=(prefix.text, hole.text, end.text, "<｜end▁of▁sentence｜>", "<|EOT|>"),
        with_context=(begin, prefix, PromptField.CONTEXT, Segment("#"), PromptField.PATH, _NEWLINE, *tail),
        chunk=(Segment("#"), PromptField.PATH, _NEWLINE, PromptField.TEXT, _NEWLINE),
        pretokenizer=_GPT2_WORDS,
    )


def _instruct() -> PromptFormat:
    """The study's prompt (arXiv 2308.10462), for any family."""
    return PromptFormat(
        id="instruct-v1",
        task=Task.INTENT,
        pieces=(Segment("### Instruction:\n"), PromptField.INTENT, Segment("\n### Response:\n")),
        stop=("### Instruction:", "### Response:", "<|endoftext|>", "<|im_end|>", "</s>"),
        answered=(Segment("\n\n"),),
    )


def _qwen_chat() -> PromptFormat:
    """ChatML as Qwen2.5's chat template writes it, the answer begun with a fence so that it holds only code."""
    start, end = _control("<|im_start|>"), _control("<|im_end|>")
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    return PromptFormat(
        id="qwen-chat-v1",
        task=Task.INTENT,
        pieces=(
            *(start, Segment(f"system\n{system}"), end, _NEWLINE),
            *(
                start,
                Segment("user\nWrite "),
                PromptField.LANGUAGE,
                Segment(" code: "),
                PromptField.INTENT,
                end,
                _NEWLINE,
            ),
            *(start, Segment("assistant\n```"), PromptField.LANGUAGE, _NEWLINE),
        ),
        end="<|im_end|>",
        stop=("\n```", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        question=4,
        answered=(Segment("\n```"), end, _NEWLINE),
        in_file="qwen-chat-file-v1",
    )


def _qwen_chat_file() -> PromptFormat:
    """The same with the file, for a sentence that stands in one; the file comes first, or the answer begins with it."""
    start, end = _control("<|im_start|>"), _control("<|im_end|>")
    chat = _qwen_chat()
    file = (
        Segment("\n```"),
        PromptField.LANGUAGE,
        _NEWLINE,
        PromptField.PREFIX,
        PromptField.SUFFIX,
        Segment("\n```\n"),
    )
    return replace(
        chat,
        id="qwen-chat-file-v1",
        pieces=(
            *chat.pieces[: chat.question],
            *(start, Segment("user\nThis file is to be continued:"), *file),
            *(
                Segment("Write the "),
                PromptField.LANGUAGE,
                Segment(" code that comes next: "),
                PromptField.INTENT,
                end,
                _NEWLINE,
            ),
            *(start, Segment("assistant\n```"), PromptField.LANGUAGE, _NEWLINE),
        ),
        answered=(),
        in_file="",
    )


FORMATS: Mapping[str, PromptFormat] = {
    each.id: each
    for each in (
        _qwen_fim(),
        _codellama_fim(),
        _starcoder2_fim(),
        _deepseek_fim(),
        _instruct(),
        _qwen_chat(),
        _qwen_chat_file(),
    )
}


def get(format_id: str) -> PromptFormat:
    """The format with this id; raises NotFound, naming the known ids."""
    if format_id not in FORMATS:
        raise NotFound(
            f"no prompt format '{format_id}'",
            why=f"known formats: {', '.join(sorted(FORMATS))}",
            fix="Correct the id in the model catalogue or the adapter's manifest",
        )
    return FORMATS[format_id]
