"""From a document to a prompt that fits a token budget and changes little while the user types.

The engine keeps the KV cache of the last prompt: what a new prompt shares with it from its first token on costs
nothing, all after the first difference is computed again. So the windows around the cursor are cut at places that
stay put while the text grows, the last lines come last where the format allows it, and chunks of other files keep
their order, ahead of the file. Does not cover which chunks are worth having, nor formats.

That order needs care at its end. In the usual one the model begins its answer after a control token, and was trained
to do so anywhere; here it goes on with text, and must be left where one of its tokens may end (``held_back``).
Measured with Qwen2.5-Coder-0.5B-Instruct (Q4_K_M) on holes in lines of Python's library, first words right: cut
between words (35) 21 in the usual order, 26 with the cursor's line at the end, 27 with up to eight lines; cut inside
words (9) 3 in the usual order, 1 with eight lines at the end and nothing held back, 7 with the word held back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log
from typing import Protocol

from peft_core.api_types import ContextChunk
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_core.privacy.files import secret_file
from peft_core.privacy.values import masked, masked_parts, secret_values
from peft_daemon.completion.formats import Piece, PromptField, PromptFormat
from peft_daemon.engines.base import Prompt, Segment


class Tokenizer(Protocol):
    """Counts tokens."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text when tokenized literally (no special tokens)."""


class RemoteTokenizer(Protocol):
    """Counts tokens in another process; every engine is one."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text when tokenized literally (no special tokens)."""


class _UnknownCounts(Exception):
    """``build`` needs counts that are not known yet."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self.texts = texts


class _KnownCounts:
    """A ``Tokenizer`` over the counts that a remote one has given so far."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See ``Tokenizer``; raises _UnknownCounts."""
        if any(text not in self._counts for text in texts):
            raise _UnknownCounts(texts)
        return [self._counts[text] for text in texts]

    def learn(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Note what the remote tokenizer answered."""
        self._counts.update(zip(texts, counts, strict=True))


CHARACTERS_PER_TOKEN = 3.2
"""First estimate; Python in Qwen2.5's vocabulary has 3.0 to 4.5."""
PREFIX_SHARE = 0.75
"""Part of the window that text before the cursor may take; the rest, and what it leaves, is for the text after."""
MAX_CONTEXT_SHARE = 0.3
"""Part of the room that chunks may take from the document's own text. They have more where that needs less."""
MARGIN_TOKENS = 16
"""Left free for what an engine may add (a begin-of-sequence token) and for pieces that tokenize apart."""
MIN_PROMPT_TOKENS = 64
WINDOW_STEPS = 8
"""A window moves by one part in so many of the budget at a time."""
MAX_HELD_CHARACTERS = 24
"""A longer stretch (a sentence in Chinese) is no token in the making."""
TYPED_LINES = 8
"""Whole lines before the cursor's that may stand at the end of the prompt; a new line costs nothing until then."""


@dataclass(frozen=True)
class Shot:
    """A solved example, shown before the question."""

    intent: str
    answer: str


def prompt_budget(context_tokens: int, max_tokens: int) -> int:
    """Tokens a prompt may have when the answer may have ``max_tokens``; raises InvalidInput when too few are left."""
    budget = context_tokens - max_tokens - MARGIN_TOKENS
    if budget < MIN_PROMPT_TOKENS:
        raise InvalidInput(
            f"no room for a prompt: {max_tokens} tokens of answer in a context of {context_tokens}",
            fix=f"Ask for at most {context_tokens - MARGIN_TOKENS - MIN_PROMPT_TOKENS} tokens",
        )
    return budget


def shown_characters(before: int, after: int, tokens: int) -> tuple[int, int]:
    """Return about how much of a document a prompt of ``tokens`` tokens shows beside chunks of other text.

    The document has ``before`` characters before the cursor and ``after`` behind it, and so has the result.
    """
    room = int(tokens * CHARACTERS_PER_TOKEN * (1 - MAX_CONTEXT_SHARE))
    share = int(room * PREFIX_SHARE)
    return min(before, max(share, room - after)), min(after, max(room - share, room - before))


def held_back(line: str, pretokenizer: str) -> str:
    """The end of the text before the cursor that belongs to the model's next token, or nothing.

    A vocabulary has `` return``, ``(self`` and ``.append`` as tokens. A prompt that ends with `` re``, ``(`` or ``.``
    on their own tells the model that none of these follows. So that end is left out of the prompt, and the answer has
    to begin with it ("token healing"). Of white space that is the last character; digits are tokens of their own.
    """
    last = ""
    for match in re.finditer(pretokenizer, line) if pretokenizer else ():
        last = match[0]
    if last.isspace():
        return last[-1]
    return last if len(last) <= MAX_HELD_CHARACTERS and not last.isdigit() else ""


def unheld(answer: str, held: str) -> str:
    """``answer`` without the held-back text it was to begin with; as it is if it begins otherwise."""
    return answer[len(held) :] if answer.startswith(held) else "" if held.startswith(answer) else answer


def contradicts(answer: str, held: str) -> bool:
    """Whether the model, where nothing made it begin with the held-back text, began with another.

    Its answer then goes on from a text that is not the document's. White space in another place does no harm.
    """
    return bool(held.strip()) and not answer.startswith(held) and not held.startswith(answer)


def build(
    document: Document,
    prompt_format: PromptFormat,
    budget: int,
    tokenizer: Tokenizer,
    *,
    intent: str = "",
    context: Sequence[ContextChunk] = (),
    repository: str = "",
    shots: Sequence[Shot] = (),
) -> tuple[Prompt, str]:
    """Return the prompt for ``document`` in at most ``budget`` tokens, and the text that was held back from it.

    The answer has to begin with that text, which may be empty; see ``held_back``.

    Lengths are estimated in characters and then counted: the tokenizer is called once as a rule, three times at most,
    and never for a text that fits whatever its tokens are. Raises InvalidInput when what must be in the prompt
    (a very long intent, the shots) does not fit, and for shots in a format that shows none.
    """
    if shots and not prompt_format.answered:
        raise InvalidInput(f"the prompt format '{prompt_format.id}' shows no solved examples")
    held = "" if inside_secret(document) else held_back(document.line_before, prompt_format.pretokenizer)
    context = [chunk for chunk in context if secret_file(chunk.path) is None]
    # What the format does not show must not take room from the rest.
    shown = document if PromptField.SUFFIX in prompt_format.pieces else replace(document, suffix="")
    fixed = {
        PromptField.INTENT: masked(intent.strip()),
        PromptField.LANGUAGE: document.language,
        PromptField.REPOSITORY: repository or "repository",
        PromptField.PATH: document.path or "untitled",
    }
    frame = len("".join(fixed.values()).encode()) + len(prompt_format.pieces)
    smallest = 1.0 if (document.prefix + document.suffix).isascii() else 0.25
    characters_per_token = CHARACTERS_PER_TOKEN
    for attempt in range(3):
        room = int(max(0, budget - frame) * characters_per_token)
        window = _without_secrets(_select(shown, room, held, context if prompt_format.with_context else ()))
        prompt = _write(prompt_format, window, fixed, shots)
        # No token has less than one byte; SentencePiece may add one for a text's first space.
        if sum(1 if piece.special else len(piece.text.encode()) + 1 for piece in prompt) <= budget:
            return prompt, held
        tokens = sum(tokenizer.count_tokens([piece.text for piece in prompt if not piece.special]))
        tokens += sum(piece.special for piece in prompt)
        if tokens <= budget:
            return prompt, held
        # By quarters, so that a token more or less moves no window; at last by bytes: no token has less than one.
        for _quarter in range(ceil(log(tokens / budget, 4 / 3))):
            characters_per_token *= 0.75
        if attempt == 1:
            characters_per_token = min(characters_per_token, smallest)
    raise InvalidInput(
        f"the prompt does not fit: at least {tokens} tokens where {budget} are free",
        fix="Shorten the sentence or ask for a shorter answer",
    )


async def build_for_engine(
    engine: RemoteTokenizer,
    document: Document,
    prompt_format: PromptFormat,
    budget: int,
    *,
    intent: str = "",
    context: Sequence[ContextChunk] = (),
    repository: str = "",
    shots: Sequence[Shot] = (),
) -> tuple[Prompt, str]:
    """Build a prompt as ``build`` does, with the tokenizer of an engine in another process.

    Raises as ``build`` does, and what the engine raises.
    """
    known = _KnownCounts()
    while True:
        try:
            return build(
                *(document, prompt_format, budget, known),
                intent=intent,
                context=context,
                repository=repository,
                shots=shots,
            )
        except _UnknownCounts as unknown:
            texts = unknown.texts
        known.learn(texts, await engine.count_tokens(texts))


@dataclass(frozen=True)
class _Window:
    """What of the document and of other files is shown; ``typed`` goes on where ``before`` ends."""

    before: str
    typed: str
    after: str
    chunks: tuple[ContextChunk, ...]


def inside_secret(document: Document) -> bool:
    """Whether the cursor stands in a value that looks like a secret, or at its end."""
    at = len(document.line_before)
    return any(start < at <= end for start, end in secret_values(document.line_before + document.line_after))


def _without_secrets(window: _Window) -> _Window:
    """The window as the model may see it."""
    before, typed, after = masked_parts(window.before, window.typed, window.after)
    return _Window(before, typed, after, tuple(ContextChunk(each.path, masked(each.text)) for each in window.chunks))


def _select(document: Document, room: int, held: str, context: Sequence[ContextChunk]) -> _Window:
    """Cut the window, ``room`` characters long, out of the document; what is left goes to the chunks, in order."""
    before, after = document.prefix.removesuffix(held), document.suffix
    step = max(1, room // WINDOW_STEPS)
    reserved = min(sum(len(each.path) + 4 + len(each.text) for each in context), int(room * MAX_CONTEXT_SHARE))
    own_room = room - reserved
    share = int(own_room * PREFIX_SHARE)
    start = _window_start(before, max(share, own_room - _up(len(after), step)), step)
    end = _window_end(after, max(own_room - share, own_room - _up(len(before), step)))
    typed = max(start, _typed_start(document))
    left = max(reserved, room - _up(len(before) - start, step) - _up(end, step))
    chunks: list[ContextChunk] = []
    for chunk in context:
        left -= len(chunk.path) + 4
        cut = _window_end(chunk.text, left) if left > 0 else 0
        if cut < len(chunk.text) and cut < step:
            break
        chunks.append(ContextChunk(chunk.path, chunk.text[:cut]))
        left -= cut
    return _Window(before[start:typed], before[typed:], after[:end], tuple(chunks))


def _typed_start(document: Document) -> int:
    """Where the last lines begin: always at the same line until ``TYPED_LINES`` more of them are there."""
    start = document.line_start
    for _line in range(document.prefix.count("\n", 0, start) % TYPED_LINES):
        start = document.prefix.rfind("\n", 0, start - 1) + 1
    return start


def _window_start(text: str, room: int, step: int) -> int:
    """Where the last ``room`` characters begin: at a line start, and always the same one until a step is filled."""
    if len(text) <= room:
        return 0
    start = min(_up(len(text) - room, step), len(text))
    line = text.find("\n", start - 1) + 1
    return line or start


def _window_end(text: str, room: int) -> int:
    """Where the first ``room`` characters end: at a line end, unless the first line alone is longer."""
    if len(text) <= room:
        return len(text)
    return text.rfind("\n", 1, max(room, 0)) + 1 or max(room, 0)


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


def _write(
    prompt_format: PromptFormat, window: _Window, fixed: Mapping[PromptField, str], shots: Sequence[Shot]
) -> Prompt:
    """Fill the slots."""
    pieces = prompt_format.with_context if window.chunks else prompt_format.pieces
    apart = PromptField.TYPED in pieces
    values = {
        **fixed,
        PromptField.PREFIX: window.before if apart else window.before + window.typed,
        PromptField.TYPED: window.typed,
        PromptField.SUFFIX: window.after,
    }
    prompt: list[Segment] = []

    def add(piece: Piece, values: Mapping[PromptField, str]) -> None:
        append_segment(prompt, piece if isinstance(piece, Segment) else Segment(values[piece]))

    for index, piece in enumerate(pieces):
        for shot in shots if index == prompt_format.question else ():
            own = {**values, PromptField.INTENT: shot.intent.strip()}
            for part in (*pieces[index:], Segment(shot.answer.strip("\n")), *prompt_format.answered):
                add(part, own)
        if piece is PromptField.CONTEXT:
            for chunk in window.chunks:
                own = {**values, PromptField.PATH: chunk.path, PromptField.TEXT: chunk.text.removesuffix("\n")}
                for part in prompt_format.chunk:
                    add(part, own)
        else:
            add(piece, values)
    return tuple(prompt)


def append_segment(prompt: list[Segment], segment: Segment) -> None:
    """Append a segment; neighbouring pieces of literal text become one, as they are one to the tokenizer."""
    if prompt and not segment.special and not prompt[-1].special:
        prompt[-1] = Segment(prompt[-1].text + segment.text)
    elif segment.text:
        prompt.append(segment)
