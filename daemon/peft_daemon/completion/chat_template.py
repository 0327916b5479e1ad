"""A prompt format from the chat template in a model's file.

The template is a program of whoever made the file. It runs in jinja2's sandbox, where it reaches no attribute that
could lead out, and in a child process that is ended when it takes too long, too much memory, or writes too much.

The template is rendered for placeholders instead of messages, once with one question and once with a solved one
before it. Control tokens of the vocabulary become special segments, all else is literal text.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from peft_core import processes
from peft_core.api_types import Task
from peft_core.errors import InvalidInput
from peft_core.fence import Fence, raise_fence
from peft_core.gguf import TokenKind, Vocabulary
from peft_daemon.completion.formats import FORMATS, Piece, PromptField, PromptFormat, cut
from peft_daemon.engines.base import Segment

MAX_TEMPLATE_CHARACTERS = 200_000
"""Far above what published templates have."""
MAX_RENDERED_CHARACTERS = 100_000
MAX_RENDER_S = 10.0
"""Longest wait for the child; a template takes milliseconds, the start of a Python on a busy machine seconds."""
MAX_PROCESSOR_S = 3
MAX_MEMORY_BYTES = 1 << 30

FENCE = "```"
QUESTION, ANSWER, NEXT_QUESTION = (f"peft-daemon-{name}-placeholder" for name in ("question", "answer", "next"))
"""Messages of the conversations that a template is rendered for."""
_LANGUAGE, _INTENT = "peft-daemon-language-placeholder", "peft-daemon-intent-placeholder"
_REQUEST = f"Write {_LANGUAGE} code: {_INTENT}"
_FIELDS = {_LANGUAGE: PromptField.LANGUAGE, _INTENT: PromptField.INTENT}
_REFUSED = "the model's chat template cannot be used"
_FIX = "Choose a format for sentences yourself: `--intent-format instruct-v1`"


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class _RenderRequest(msgspec.Struct, frozen=True):
    """What the child is asked: a template, and conversations to render with it."""

    template: str
    conversations: tuple[tuple[_Message, ...], ...]
    bos_token: str
    eos_token: str


class _RenderAnswer(msgspec.Struct, frozen=True):
    texts: tuple[str, ...] = ()
    error: str = ""


def format_of_template(template: str, vocabulary: Vocabulary) -> PromptFormat:
    """Return the format for sentences that a chat template describes; a known one if it is the same.

    Starts a child process, which takes half a second. Raises InvalidInput for a template that fails, does not end, or
    does not show the question exactly once.
    """
    question = _Message("user", QUESTION)
    solved = (question, _Message("assistant", ANSWER), _Message("user", NEXT_QUESTION))
    bos, eos = (_named_token(vocabulary, name) for name in ("bos", "eos"))
    asked, continued = _render(_RenderRequest(template, ((question,), solved), bos, eos))
    return format_of_conversations(asked, continued, vocabulary)


def format_of_conversations(asked: str, continued: str, vocabulary: Vocabulary) -> PromptFormat:
    """Return the format in which two conversations are written.

    ``asked`` is one with QUESTION alone, ``continued`` one with QUESTION, ANSWER and NEXT_QUESTION; both end where the
    model begins its answer. That is made to begin with a fence, so that it holds only code. Raises InvalidInput unless
    QUESTION is in ``asked`` exactly once.
    """
    head, tail = _split(asked)
    bos, eos = (_named_token(vocabulary, name) for name in ("bos", "eos"))
    if bos and vocabulary.metadata.get("tokenizer.ggml.add_bos_token", vocabulary.model == "llama"):
        head = head if head.startswith(bos) else bos + head
    control = [
        token for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=False) if kind == TokenKind.CONTROL
    ]
    before = cut(head, control, {})
    closing, asking = _closed(cut(_between_answer_and_question(continued, tail), control, {}), before)
    question = len(before) - len(asking)
    request = cut(f"{_REQUEST}{tail}{FENCE}{_LANGUAGE}\n", control, _FIELDS)
    pieces = (*before[:question], *_merged((*asking, *request)))
    end = next((piece.text for piece in closing if isinstance(piece, Segment) and piece.special), "")
    special = [piece.text for piece in pieces if isinstance(piece, Segment) and piece.special]
    return _known(
        PromptFormat(
            id=f"chat-{hashlib.sha256(msgspec.json.encode(pieces)).hexdigest()[:12]}",
            task=Task.INTENT,
            pieces=pieces,
            end=end,
            stop=(f"\n{FENCE}", *dict.fromkeys([*special, *filter(None, (end, eos))])),
            question=question,
            answered=_merged((Segment(f"\n{FENCE}"), *closing)) if closing else (),
        )
    )


def _known(derived: PromptFormat) -> PromptFormat:
    """The format of the catalogue that writes the same prompts, if there is one: adapters name that one."""
    same = (
        known
        for known in FORMATS.values()
        if (known.pieces, known.answered, known.end) == (derived.pieces, derived.answered, derived.end)
    )
    return next(same, derived)


def _named_token(vocabulary: Vocabulary, name: str) -> str:
    id_ = vocabulary.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return vocabulary.tokens[id_] if isinstance(id_, int) and 0 <= id_ < len(vocabulary.tokens) else ""


def _split(asked: str) -> tuple[str, str]:
    """What stands before and after the question; raises InvalidInput unless it is there exactly once."""
    if asked.count(QUESTION) != 1:
        raise InvalidInput(_REFUSED, why=f"it shows the user's message {asked.count(QUESTION)} times", fix=_FIX)
    before, _, after = asked.partition(QUESTION)
    return before, after


def _between_answer_and_question(continued: str, tail: str) -> str:
    """What stands between an answer and the next question; empty if earlier questions are written differently."""
    if any(continued.count(placeholder) != 1 for placeholder in (QUESTION, ANSWER, NEXT_QUESTION)):
        return ""
    before_answer, _, rest = continued.partition(QUESTION)[2].partition(ANSWER)
    between, _, end = rest.partition(NEXT_QUESTION)
    return between if before_answer == end == tail else ""


def _closed(between: Sequence[Piece], before: Sequence[Piece]) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Split what is between an answer and a question: what closes the answer, and the end of ``before`` again.

    The first ends with the first control token and the text after it. Nothing if ``before`` ends otherwise.
    """
    special = [isinstance(piece, Segment) and piece.special for piece in between]
    keep = special.index(True) + 1 if True in special else len(between)
    keep += keep < len(between) and not special[keep]
    closing, asking = tuple(between[:keep]), tuple(between[keep:])
    return (closing, asking) if asking == tuple(before[len(before) - len(asking) :]) else ((), ())


def _merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with neighbouring literal texts as one."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, Segment) and isinstance(last, Segment) and not (piece.special or last.special):
            merged[-1] = Segment(last.text + piece.text)
        else:
            merged.append(piece)
    return tuple(merged)


def _render(request: _RenderRequest) -> tuple[str, ...]:
    """Render in a child process; raises InvalidInput with the template's own error or the limit that it met."""
    if len(request.template) > MAX_TEMPLATE_CHARACTERS:
        raise InvalidInput(
            _REFUSED,
            why=f"it has {len(request.template)} characters, at most {MAX_TEMPLATE_CHARACTERS} are read",
            fix=_FIX,
        )
    try:
        done = processes.run(
            processes.python_module("peft_daemon.completion.chat_template"),
            input=msgspec.json.encode(request),
            capture_output=True,
            timeout=MAX_RENDER_S,
        )
        answer = msgspec.json.decode(done.stdout, type=_RenderAnswer)
    except subprocess.TimeoutExpired:
        answer = _RenderAnswer(error=f"it takes too much time, more than {MAX_RENDER_S:.0f} s")
    except msgspec.DecodeError:
        answer = _RenderAnswer(error="it takes too much time or memory")
    if answer.error:
        raise InvalidInput(_REFUSED, why=answer.error, fix=_FIX)
    return answer.texts


def _limit_resources() -> None:
    """Bound processor time and memory of this process; Windows has no such limits, there the parent's clock counts."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  (not on Windows)

    for what, most in ((resource.RLIMIT_CPU, MAX_PROCESSOR_S), (resource.RLIMIT_AS, MAX_MEMORY_BYTES)):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is there already, or none can be set (macOS)
            resource.setrlimit(what, (most, most))


def _serve(request: _RenderRequest) -> _RenderAnswer:
    """Render each conversation as transformers does; the child's side."""
    import jinja2  # noqa: PLC0415  (needed by the child alone)
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    def raise_exception(message: object) -> None:
        raise jinja2.TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    texts = []
    try:
        template = environment.from_string(request.template)
        for conversation in request.conversations:
            text = ""
            parts = template.generate(
                messages=[msgspec.structs.asdict(message) for message in conversation],
                add_generation_prompt=True,
                enable_thinking=False,
                tools=None,
                documents=None,
                bos_token=request.bos_token,
                eos_token=request.eos_token,
            )
            for part in parts:
                text += part
                if len(text) > MAX_RENDERED_CHARACTERS:
                    return _RenderAnswer(error=f"it writes more than {MAX_RENDERED_CHARACTERS} characters")
            texts.append(text)
    except MemoryError:
        return _RenderAnswer(error="it takes too much memory")
    except Exception as error:  # whatever a stranger's program may raise
        return _RenderAnswer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return _RenderAnswer(tuple(texts))


def main() -> None:
    """Read a request from stdin, write its answer to stdout."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=_RenderRequest)
    _limit_resources()
    raise_fence(Fence())
    sys.stdout.buffer.write(msgspec.json.encode(_serve(request)))


if __name__ == "__main__":
    main()
