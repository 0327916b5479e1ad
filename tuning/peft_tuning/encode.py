"""Encode examples as token ids: the prompt as in completion, and the answer that must follow it.

Prompts come from the function that completion uses (``completion.prompt.build``): the same window, the same order, the
same text held back at the cursor. Therefore the answer begins with the held-back text, as it must when the adapter is
served. It ends as a served answer does: with a closed fence if the prompt opened one, and the format's end token.

Of an example to be learned whole, the prompt's code is learned too, as models are trained to fill in (Bavarian et al.,
arXiv 2207.14255): then a token that is read is not only shown. With a large vocabulary a third of the work is the
projection on it, so only ``LEARNED_TOKENS`` of an example have a loss: its answer, and others drawn by its id.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from peft_core.api_types import Task
from peft_core.code.document import Document, normalize_newlines
from peft_core.code.edits import LineChange, join_lines
from peft_core.errors import InvalidInput, PeftDaemonError
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.formats import PromptField, PromptFormat
from peft_daemon.engines.base import Prompt
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.engines.torch.tokenizer import LiteralTokenizer, encoder_frame
from peft_daemon.models.catalogue import PromptFormats
from peft_daemon.next_edit.formats import DEFAULT as DEFAULT_EDIT_FORMAT
from peft_daemon.next_edit.formats import EditFormat, edit_format
from peft_daemon.next_edit.prompt import MOST_FILE_CHARACTERS, answer_text, edit_prompt
from peft_tuning.data.examples import CompletionExample, EditExample, Example, FillExample, IntentExample

FENCE = "```"
SHOWN_CHARACTERS = (MOST_FILE_CHARACTERS, MOST_FILE_CHARACTERS // 2, MOST_FILE_CHARACTERS // 4, 0)
"""Most characters of the document around the window of an edit; the first are taken with which its prompt fits."""
FRAME_TOKENS = 512
"""Room for a format's own text around a sentence, which does not count against the sentence's limit."""
LEARNED_TOKENS = 192
"""Most tokens with loss in an example that is learned whole."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of one example; loss is on ``response``, and on the prompt's tokens at the positions ``learned``."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    """Ends with the format's end token (or the tokenizer's end-of-sequence token)."""
    cut: bool = False
    """Whether the prompt shows only a part of the document."""
    learned: tuple[int, ...] = ()
    """Rising, from 1 on: nothing comes before the first token that could predict it."""
    ends_with_line: bool = False
    """Whether the answer is the rest of its line: completion stops at a line end as it does at the end token."""
    weight: float = 1.0
    """How much each of its tokens counts in the loss."""
    judged_tokens: int = 0
    """The tokens of the answer that its nats are divided by where it is judged; 0: all.

    Of an edit's answer, most is copied: there these are the tokens of the lines that change.
    """

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def loss_tokens(self) -> int:
        """Number of tokens with loss."""
        return len(self.response) + len(self.learned)

    @property
    def loss_weight(self) -> float:
        """Sum of the weights of its tokens with loss."""
        return self.weight * self.loss_tokens

    def targets(self, ignored: int) -> list[int]:
        """Return what each position has to predict, from the first to the last but one; ``ignored`` without loss."""
        made = [ignored] * (len(self.prompt) - 1) + list(self.response)
        for position in self.learned:
            made[position - 1] = self.prompt[position]
        return made


@dataclass(frozen=True)
class DroppedExample:
    """An example that is not trained on."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class TokenLimits:
    """Longest prompt and answer, in tokens.

    For a sentence the prompt limit counts its own tokens, as the study does; for a document the whole prompt, as
    completion does.
    """

    prompt_tokens: int
    response_tokens: int


@dataclass(frozen=True)
class EncodedExamples:
    """One part of a data set, encoded, and how many of its rows were left out, by reason."""

    examples: tuple[EncodedExample, ...]
    rows: tuple[int, ...] = ()
    """Index of each example in the data that was encoded."""
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def cut(self) -> int:
        """Number of prompts that were cut."""
        return sum(each.cut for each in self.examples)

    @property
    def tokens(self) -> int:
        """Tokens of all prompts and answers."""
        return sum(map(len, self.examples))


@dataclass(frozen=True)
class ExampleTokenizer:
    """A model's tokenizer, and the tokens that end a text."""

    literal: LiteralTokenizer
    end_of_sequence: int
    encoder_frame: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Tokens before and after an encoder's input."""

    @classmethod
    def of(cls, base: LoadedBase) -> ExampleTokenizer:
        """Return the tokenizer of a base model; raises InvalidInput if it has no end-of-sequence token."""
        end = base.tokenizer.eos_token_id
        if not isinstance(end, int):
            raise InvalidInput(
                "the base model's tokenizer has no end-of-sequence token",
                why="a tuned model could not learn where its answer ends",
                fix="Choose another base with `--base`",
            )
        frame = encoder_frame(base.tokenizer) if base.family.encoder_decoder else ((), ())
        return cls(LiteralTokenizer(base.tokenizer), end, frame)


def task_of(example: Example) -> Task:
    """Return the task that completion would give the example."""
    if isinstance(example, EditExample):
        return Task.EDIT
    return Task.FILL if isinstance(example, FillExample) else Task.INTENT


def edit_format_of(ids: PromptFormats) -> EditFormat:
    """Return the format of next edits that a model is tuned in: its own, else that of our adapters."""
    return edit_format(ids.edit) if ids.edit else DEFAULT_EDIT_FORMAT


def format_ids(ids: PromptFormats, examples: Iterable[Example]) -> dict[str, str]:
    """Return the ids of the formats of a run, by task; that of edits only where there are any to learn."""
    found = {Task.FILL.value: ids.fill, Task.INTENT.value: ids.intent}
    if any(isinstance(each, EditExample) for each in examples):
        found[Task.EDIT.value] = edit_format_of(ids).id
    return found


def encode_examples(
    examples: Iterable[Example], ids: PromptFormats, tokens: ExampleTokenizer, limits: TokenLimits
) -> EncodedExamples:
    """Encode every example in the format of its task, in order."""

    results = [
        encode_edit(example, edit_format_of(ids), tokens, limits)
        if isinstance(example, EditExample)
        else encode_example(example, formats.of_model(ids, task_of(example)), tokens, limits)
        for example in examples
    ]
    dropped = Counter(each.reason for each in results if isinstance(each, DroppedExample))
    kept = [(row, each) for row, each in enumerate(results) if isinstance(each, EncodedExample)]
    return EncodedExamples(tuple(each for _, each in kept), tuple(row for row, _ in kept), dict(dropped))


def encode_example(
    example: CompletionExample, prompt_format: PromptFormat, tokens: ExampleTokenizer, limits: TokenLimits
) -> EncodedExample | DroppedExample:
    """Encode one example in ``prompt_format``, or return why it cannot be trained on.

    Raises InvalidInput if the format is for another task or needs control tokens that the tokenizer lacks.
    """
    if prompt_format.task is not task_of(example):
        raise InvalidInput(
            f"the prompt format '{prompt_format.id}' is for {prompt_format.task}, not for {task_of(example)}",
            fix=f"Choose a format for {task_of(example)}",
        )

    if isinstance(example, IntentExample):
        intent = normalize_newlines(example.intent).strip()
        if not intent:
            return DroppedExample("no sentence")
        length = len(tokens.literal.encode_text(intent))
        if length > limits.prompt_tokens:
            return DroppedExample("sentence too long")
        document = Document("", language=example.language)
        budget = length + FRAME_TOKENS
        segments, held = prompt.build(document, prompt_format, budget, tokens.literal, intent=intent)
        answer = normalize_newlines(example.code).strip("\n").rstrip()
        shown_whole = True
    else:
        document = Document.normalized(
            example.prefix, example.suffix, path=example.path or None, language=example.language
        )
        try:
            segments, held = prompt.build(
                document, prompt_format, limits.prompt_tokens, tokens.literal, context=example.context
            )
        except PeftDaemonError:
            return DroppedExample("prompt does not fit")
        answer = normalize_newlines(example.middle)
        shown_whole = _shows_whole(document, segments, held)
    pieces = [tokens.literal.encode_prompt((segment,)) for segment in segments]
    encoded = _with_answer(pieces, answer, prompt_format, tokens, limits, held=held, cut=not shown_whole)
    if isinstance(encoded, EncodedExample):
        encoded = replace(encoded, weight=example.weight)
    if isinstance(encoded, EncodedExample) and isinstance(example, FillExample):
        rest_of_line = "\n" not in answer and document.suffix[:1] in ("", "\n") and not opens_fence(prompt_format)
        encoded = replace(encoded, ends_with_line=rest_of_line)
        if not example.learn_all or any(tokens.encoder_frame):
            return encoded  # an encoder reads the code around and predicts nothing
        code = _code_positions(segments, pieces, document, len(tokens.encoder_frame[0]))
        drawn = random.Random(example.id).sample(  # noqa: S311  (choice, not secrecy)
            code, min(len(code), max(0, LEARNED_TOKENS - len(encoded.response)))
        )
        return replace(encoded, learned=tuple(sorted(drawn)))
    return encoded


def encode_edit(
    example: EditExample, form: EditFormat, tokens: ExampleTokenizer, limits: TokenLimits
) -> EncodedExample | DroppedExample:
    """Encode an edit, or return why it cannot be trained on.

    The document around the window is what gives way in a prompt that would be too long. Raises InvalidInput if the
    format needs control tokens that the tokenizer lacks.
    """
    for characters in SHOWN_CHARACTERS:
        pieces = edit_prompt(example.moment, example.place, form, most_characters=characters)
        shown = tokens.literal.encode_prompt(pieces)
        if len(shown) <= limits.prompt_tokens:
            break
    else:
        return DroppedExample("prompt does not fit")
    written = form.same if form.same and example.is_silent else answer_text(example.answer, form)
    if any(stop in written.removesuffix(form.closing) for stop in form.stop):
        return DroppedExample("answer holds a stop string of the format")
    end = tokens.literal.special_id(form.end) if form.end else tokens.end_of_sequence
    response = [*tokens.literal.encode_text(written), end]
    if len(response) > limits.response_tokens:
        return DroppedExample("answer too long")
    change = LineChange(0, example.window, example.answer).trimmed()
    before, after = (join_lines(example.answer[:line]) for line in (change.start, change.new_end))
    changed = len(tokens.literal.encode_text(after)) - len(tokens.literal.encode_text(before))
    first, last = tokens.encoder_frame
    return EncodedExample(
        (*first, *shown, *last),
        tuple(response),
        cut=characters < MOST_FILE_CHARACTERS,
        weight=example.weight,
        judged_tokens=max(1, changed),
    )


def _code_positions(segments: Prompt, pieces: Sequence[Sequence[int]], document: Document, before: int) -> list[int]:
    """Return the positions of the prompt's tokens that are the document's code, without names of files and controls.

    ``pieces`` are the tokens of the segments, and ``before`` is how many tokens come before the first.
    """
    found: list[int] = []
    at = before
    for segment, piece in zip(segments, pieces, strict=True):
        if not segment.special and (segment.text in document.prefix or segment.text in document.suffix):
            found += range(max(at, 1), at + len(piece))
        at += len(piece)
    return found


def _shows_whole(document: Document, segments: Prompt, held: str) -> bool:
    """Return whether the whole document is in the prompt, where its last lines may be apart from the rest."""
    prefix = document.prefix.removesuffix(held)
    texts = [segment.text for segment in segments if not segment.special]
    typed = [text for text in ("", *texts[-1:]) if prefix.endswith(text)]
    before = any(text.endswith(prefix.removesuffix(end)) for end in typed for text in texts)
    return (before or prefix in typed) and (not document.suffix or document.suffix in texts)


def _with_answer(
    pieces: Sequence[Sequence[int]],
    answer: str,
    prompt_format: PromptFormat,
    tokens: ExampleTokenizer,
    limits: TokenLimits,
    *,
    held: str,
    cut: bool,
) -> EncodedExample | DroppedExample:
    """Return the prompt, of these pieces, with its answer; dropped if completion could not give that answer."""
    if not answer.strip():
        return DroppedExample("no answer")
    if any(stop in answer for stop in prompt_format.stop):
        return DroppedExample("answer holds a stop string of the format")
    written = held + answer + (f"\n{FENCE}" if opens_fence(prompt_format) else "")
    end = tokens.literal.special_id(prompt_format.end) if prompt_format.end else tokens.end_of_sequence
    response = [*tokens.literal.encode_text(written), end]
    if len(response) > limits.response_tokens:
        return DroppedExample("answer too long")
    first, last = tokens.encoder_frame
    prompt_tokens = tuple(token for piece in (first, *pieces, last) for token in piece)
    return EncodedExample(prompt_tokens, tuple(response), cut)


def opens_fence(prompt_format: PromptFormat) -> bool:
    """Whether the prompt ends inside a fenced block, which the answer then must close."""
    text = "".join(piece.text if not isinstance(piece, PromptField) else "" for piece in prompt_format.pieces)
    return text.count(FENCE) % 2 == 1
