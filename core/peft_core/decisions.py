"""What was decided about a request for a completion, by which part, and in words: what ``peft-daemon why`` shows.

The daemon notes a ``RequestDecision`` for each request, the language server one for each that it answered with nothing
by itself. A decision has no code: names, places, numbers and sentences of ours.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from peft_core.api_types import Confidence, Count, Name, ShortText, Timings

MAX_DECISIONS = 200
"""Most decisions that the daemon keeps, and that an answer has."""
MAX_REPORTED = 20
"""Most decisions of one report."""

LineNumber = Annotated[int, Meta(ge=0)]


class Decider(StrEnum):
    """The part that decided what became of a request."""

    MODEL = "model"
    JOINED = "joined"
    """A generation that an earlier key had begun."""
    KEPT = "kept"
    """An earlier answer, without the model."""
    AHEAD = "ahead"
    """An answer that was generated before anybody asked for it."""

    SECRET_FILE = "secret_file"  # noqa: S105  (a kind of file)
    SWITCHED_OFF = "switched_off"
    LANGUAGE = "language"
    DOCUMENT = "document"
    """Empty, or not text."""
    COMPLETION_LIST = "completion_list"
    """The list that the editor shows."""
    IN_WORD = "in_word"
    IN_SECRET = "in_secret"  # noqa: S105  (a place in a document)
    NOTHING_AROUND = "nothing_around"
    IN_COMMENT = "in_comment"
    IN_STRING = "in_string"
    FILE_PATTERN = "file_pattern"
    """The editor's setting ``disabledFiles``."""
    DISMISSED = "dismissed"
    """The user refused the same suggestion there before."""

    DELAY = "delay"
    """The editor's setting ``delayMs``."""
    TYPING_PAUSE = "typing_pause"
    """The daemon's pause before it asks the model."""
    NEWER_REQUEST = "newer_request"
    EDITED = "edited"
    CANCELLED = "cancelled"

    CONNECTION = "connection"
    """The language server has no daemon to ask."""
    ENGINE = "engine"
    REFUSED = "refused"
    """The request could not be understood or served as it was."""
    DEADLINE = "deadline"
    NOTHING_WRITTEN = "nothing_written"
    """The model ended at once."""
    UNSURE = "unsure"
    """The model's own probabilities are too low."""
    POSTPROCESSING = "postprocessing"


REPLACED = frozenset((Decider.DELAY, Decider.TYPING_PAUSE, Decider.NEWER_REQUEST, Decider.EDITED, Decider.CANCELLED))
"""Deciders of silences that are usual while somebody types."""


class RequestDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request."""

    id: Annotated[str, Meta(min_length=1, max_length=100)]
    """That of the answer, where the daemon was asked."""
    at: float
    """When the request ended, in seconds since 1970."""
    decider: Decider
    detail: ShortText = ""
    """What that part said: a sentence, or the name of its step."""
    editor: bool = False
    """The language server decided, not the daemon."""
    route: Name = "complete"
    document: ShortText = ""
    """The document's path below its workspace, else its name; empty: it has none."""
    line: LineNumber = 0
    """Of the cursor, from 1; 0: not known."""
    column: LineNumber = 0
    task: Name = ""
    model: Name = ""
    adapter: Name = ""
    characters: Count = 0
    """Characters of the suggestion; 0: nothing was shown."""
    confidence: Confidence | None = None
    """How likely it is right, by the model's own probabilities; null: not known, or nothing was shown."""
    doubt: Confidence | None = None
    """How likely it would be with what was left out for being too unsure; null: nothing was."""
    paused_ms: float = 0.0
    """The pause in typing that was waited for."""
    timings: Timings = Timings()


class DecisionReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/why``: what a language server decided by itself."""

    decisions: Annotated[list[RequestDecision], Meta(max_length=MAX_REPORTED)]


class DecisionsTaken(msgspec.Struct, frozen=True):
    """Answer of ``POST /v1/why``."""

    taken: int


class WhyQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of ``GET /v1/why``."""

    last: Annotated[int, Meta(ge=0, le=MAX_DECISIONS)] = 0
    """How many of the last decisions are listed."""
    file: ShortText = ""
    """Only those of this document: its path, or the end of its path."""


class ExplainedDecision(msgspec.Struct, frozen=True):
    """A decision in words."""

    decision: RequestDecision
    words: str
    """Why there was a suggestion, or none."""
    fix: str
    """What to type or to set; empty: nothing."""


class WhyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /v1/why``."""

    shown: ExplainedDecision | None = None
    """The last suggestion."""
    silent: ExplainedDecision | None = None
    """The last silence that was no matter of a newer key, if there is one."""
    replaced: int = 0
    """Requests since that silence that had no answer because of a newer key or an edit."""
    decisions: list[ExplainedDecision] = []
    """As many as were asked for, the newest first."""


_WORDS: Mapping[Decider, tuple[str, str]] = {
    Decider.MODEL: ("the model wrote it", ""),
    Decider.JOINED: ("the model had begun it for an earlier key, and it goes on with what was typed", ""),
    Decider.KEPT: ("an earlier answer goes on with what was typed; the model was not asked", ""),
    Decider.AHEAD: ("it was prepared while the suggestion before it was on the screen", ""),
    Decider.SECRET_FILE: ("{detail}", "No setting turns such files on (docs/privacy.md)"),
    Decider.SWITCHED_OFF: (
        "suggestions are switched off in the editor's settings",
        "Set `peft-daemon.enabled` to true; a folder may have settings of its own",
    ),
    Decider.LANGUAGE: ("{detail}", "Take the language out of the editor's setting `disabledLanguages`"),
    Decider.DOCUMENT: ("the document is empty, or is not text", "Type the first characters"),
    Decider.COMPLETION_LIST: (
        "the selected entry of the completion list does not begin with what was typed",
        "Close the list with Escape, or select another entry",
    ),
    Decider.IN_WORD: ("the cursor stands before a word or inside one", "Move the cursor behind the word"),
    Decider.IN_SECRET: (
        "the cursor stands in a value that looks like a key or a password",
        "Such values are not completed (docs/privacy.md)",
    ),
    Decider.IN_COMMENT: (
        "the cursor stands in a comment",
        "Ask by key, or take `comment` out of the editor's setting `silentIn`",
    ),
    Decider.IN_STRING: (
        "the cursor stands in a string",
        "Ask by key, or take `string` out of the editor's setting `silentIn`",
    ),
    Decider.FILE_PATTERN: ("{detail}", "Take the pattern out of the editor's setting `disabledFiles`"),
    Decider.DISMISSED: ("you refused the same suggestion in this place", "Ask by key to see it again"),
    Decider.NOTHING_AROUND: (
        "there is nothing around the cursor to go by",
        "Type the first characters, or a comment that says what the code should do",
    ),
    Decider.DELAY: (
        "a newer key came within the editor's setting `delayMs`",
        "Stop typing for a moment; a lower `delayMs` asks sooner",
    ),
    Decider.TYPING_PAUSE: (
        "a newer key came in the pause that the daemon makes while you type faster than the model answers",
        "Stop typing for a moment; `peft-daemon status` shows the pause as typing_pause_ms",
    ),
    Decider.NEWER_REQUEST: (
        "a newer request for the document took its place {detail}",
        "Stop typing for a moment; if that takes too long, `peft-daemon setup --plan` names faster models",
    ),
    Decider.EDITED: ("the document was edited before there was an answer", "Stop typing for a moment"),
    Decider.CANCELLED: (
        "the editor took the request back {detail}",
        "Editors do so at the next key, or when the cursor moves; stop for a moment",
    ),
    Decider.CONNECTION: (
        "the language server had no daemon to ask: {detail}",
        "`peft-daemon status` shows whether one runs, `peft-daemon doctor` what is wrong",
    ),
    Decider.ENGINE: ("the engine could not answer: {detail}", "`peft-daemon status` shows what the engine does"),
    Decider.REFUSED: ("the request was refused: {detail}", ""),
    Decider.DEADLINE: (
        "its time was over {detail}; nothing was complete by then",
        "Set the editor's `timeBudgetMs`, or `time_budget_fill_ms`, higher; `peft-daemon setup --plan` names faster "
        "models",
    ),
    Decider.NOTHING_WRITTEN: (
        "the model had nothing to add here",
        "Type the beginning of what you want, or try another adapter (`peft-daemon adapters list`)",
    ),
    Decider.UNSURE: (
        "the model was too unsure of what it wrote: {detail}",
        "Set the editor's `eagerness` to high, or ask by key: what is asked for by hand is always shown",
    ),
    Decider.POSTPROCESSING: (
        "nothing was left of what the model wrote: {detail}",
        "Type the beginning of what you want",
    ),
}

STEP_WORDS: Mapping[str, str] = {
    "strip_chat": "it was talk about code, not code",
    "drop_remarks": "it was only a remark behind the line",
    "drop_secrets": "it had a value that looks like a key or a password",
    "one_line": "the cursor's line has no place for it",
    "cut_repetition": "it repeats itself",
    "drop_following": "it repeats what follows the cursor",
    "limit_scope": "it belongs to another block than the cursor",
    "fit_closing": "it only closes what is closed already",
    "whole_lines": "its first line was not finished",
    "drop_misfits": "it does not fit into the code around it",
    "drop_blank": "it was only blank space",
    "drop_comments_above": "it repeats the comment above",
    "drop_usage": "it was only an example of use",
    "drop_repetition": "it repeats the code above",
}
"""What it means that a step of post-processing left nothing, by the step's name."""


def explain(decision: RequestDecision) -> ExplainedDecision:
    """Return a decision in words."""
    words, fix = _WORDS[decision.decider]
    detail = STEP_WORDS.get(decision.detail, decision.detail)
    return ExplainedDecision(decision, words.format(detail=detail).strip(" :"), fix)


def why(decisions: Sequence[RequestDecision], query: WhyQuery) -> WhyAnswer:
    """Explain the last suggestion, the last silence and as many decisions as the query wants."""
    newest_first = sorted((each for each in decisions if is_of(each, query.file)), key=lambda each: -each.at)
    silences = [each for each in newest_first if not each.characters]
    silent = next((each for each in silences if each.decider not in REPLACED), None) or next(iter(silences), None)
    shown = next((each for each in newest_first if each.characters), None)
    return WhyAnswer(
        shown=explain(shown) if shown else None,
        silent=explain(silent) if silent else None,
        replaced=sum(each.decider in REPLACED and each.at > silent.at for each in silences) if silent else 0,
        decisions=[explain(each) for each in newest_first[: query.last]],
    )


def is_of(decision: RequestDecision, file: str) -> bool:
    """Return whether a decision is of a file; ``file`` is empty (all are), a path, or the end of one."""
    wanted, known = _parts(file), _parts(decision.document)
    shared = min(len(wanted), len(known))
    return not wanted or (shared > 0 and wanted[-shared:] == known[-shared:])


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]


def why_text(answer: WhyAnswer) -> str:
    """Return the answer for people: the last suggestion and silence, or the list if one was asked for."""
    if answer.decisions:
        return "\n".join(line for each in answer.decisions for line in _lines("", each))
    lines: list[str] = []
    for title, each in (("last suggestion", answer.shown), ("last silence", answer.silent)):
        lines += _lines(title, each) if each else [f"{title:<17}none was noted"]
    if answer.replaced:
        lines.append(f"{'':<17}since then newer keys took the place of {answer.replaced}")
    return "\n".join(lines)


def _lines(title: str, explained: ExplainedDecision) -> list[str]:
    """Return a decision's lines: when and where, why, what to do."""
    decision = explained.decision
    place = decision.document or "a document without a name"
    if decision.line:
        place += f":{decision.line}:{decision.column}"
    shown = f"{decision.characters} characters" if decision.characters else "nothing"
    head = f"{time.strftime('%H:%M:%S', time.localtime(decision.at))}  {place}  {shown}"
    indent = " " * 17 if title else " " * 10
    lines = [f"{title:<17}{head}" if title else head, f"{indent}{explained.words}"]
    if facts := _facts(decision):
        lines.append(f"{indent}{facts}")
    if explained.fix:
        lines.append(f"{indent}→ {explained.fix}")
    return lines


def _facts(decision: RequestDecision) -> str:
    """Return which model answered, and where the time went."""
    spent = decision.timings
    who = [decision.model, f"adapter {decision.adapter}" if decision.adapter else ""]
    times = [
        (decision.paused_ms, "paused {:.0f} ms"),
        (spent.queue_ms, "waited {:.0f} ms for the engine"),
        (spent.prompt_ms, f"read {spent.prompt_evaluated} tokens in {{:.0f}} ms"),
        (spent.decode_ms, f"wrote {spent.decode_tokens} in {{:.0f}} ms"),
        (spent.total_ms, "{:.0f} ms in all"),
    ]
    sure = "" if decision.confidence is None else f"{decision.confidence:.0%} sure"
    if sure and decision.doubt is not None:
        sure += f", what would follow {decision.doubt:.0%}"
    return ", ".join([*filter(None, [*who, sure]), *(words.format(ms) for ms, words in times if round(ms))])
