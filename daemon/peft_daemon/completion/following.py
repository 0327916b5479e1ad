"""From a growing answer to what a client is shown of it: parts as they become certain, and the end.

The same for an answer that is read as the engine writes it, for one an earlier request began, and for one that is
over: the text typed since it began is taken off, the rest is treated as if the model had been asked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import msgspec

from peft_core.api_types import CompleteRequest, FinishReason, Task, Timings
from peft_core.code.document import Document
from peft_daemon.completion.answer import Answer
from peft_daemon.completion.cursor import Cursor
from peft_daemon.completion.postprocess import FILL_STEPS, INTENT_STEPS, Draft, apply
from peft_daemon.completion.postprocess.repetition import circles


class Mismatch(Exception):
    """The answer does not go on with what was typed since it began, or ends there, or too soon behind it."""


@dataclass(frozen=True)
class TextPart:
    """Text that the completion goes on with; all parts in a row are the beginning of ``Completion.text``."""

    text: str


@dataclass(frozen=True)
class Completion:
    """The end of a run."""

    text: str
    """In the document's own line endings."""
    reason: FinishReason
    replace_after: int
    timings: Timings
    more: bool = False
    """The model goes on: this is what was complete when the time to show something had come."""


def accepted(asked: CompleteRequest, end: Completion) -> CompleteRequest:
    """The request that will come if the completion is accepted; what a sentence asked for is there then."""
    return msgspec.structs.replace(
        asked,
        prefix=asked.prefix + end.text,
        suffix=asked.suffix[end.replace_after :],
        intent="",
        task=Task.FILL if asked.task is Task.FILL else None,
        automatic=False,
    )


@dataclass(frozen=True)
class Place:
    """Where the text goes."""

    document: Document
    """With ``lead`` before the cursor."""
    cursor: Cursor
    fills: bool
    """Whether the text fills a hole of the document; else it answers a sentence."""
    lead: str = ""

    def process(self, text: str, *, final: bool = False, truncated: bool = False) -> Draft:
        """What of an answer is worth showing."""
        steps = FILL_STEPS if self.fills else INTENT_STEPS
        return apply(steps, Draft(text, final=final, truncated=truncated), self.document, self.cursor)

    def written(self, draft: Draft) -> str:
        """The draft as it goes into the document."""
        return self.document.restore(self.lead + draft.text) if draft.text else ""


async def follow(
    answer: Answer,
    grown: Callable[[], Awaitable[None]],
    place: Place,
    *,
    typed: str = "",
    show_at: float | None = None,
    end_at: float | None = None,
) -> AsyncGenerator[TextPart | Completion, None]:
    """Parts of the text as soon as they are certain, then the Completion.

    ``grown`` returns when there is more of the answer. ``typed`` was typed since it began. At ``show_at`` (of the
    event loop's clock) whatever is complete is the Completion, with ``more``; where nothing is, the first that will
    be. At ``end_at`` it is whatever is complete, though that be nothing. Raises Mismatch, before anything was given,
    when the answer is of no use here.
    """
    shown, looked, draft = "", len(typed), Draft("")
    late = timed_out = endless = False
    while True:
        if not answer.agrees(typed):
            raise Mismatch
        news, looked = answer.text[looked:], max(looked, len(answer.text))
        if "\n" in news:
            draft = place.process(answer.text[len(typed) :])
            if draft.done:
                break
            so_far = place.written(draft)
            if len(so_far) > len(shown) and so_far.startswith(shown):
                yield TextPart(so_far[len(shown) :])
                shown = so_far
        endless = circles(answer.text[len(typed) :])
        if answer.over or timed_out or endless:
            break
        if late and (early := _complete_so_far(answer, typed, place, shown)) is not None:
            if len(early.text) > len(shown):
                yield TextPart(early.text[len(shown) :])
            yield early
            return
        passed = await _passed(grown, _earlier(None if late else show_at, end_at))
        timed_out = passed and end_at is not None and asyncio.get_running_loop().time() >= end_at
        late = passed or late
    truncated = timed_out or endless
    if not draft.done:
        stopped = answer.cut_off or answer.reason in (FinishReason.LENGTH, FinishReason.TIMEOUT)
        truncated = truncated or stopped
        draft = place.process(answer.text[len(typed) :], final=True, truncated=truncated)
    text = _going_on(place.written(draft), shown)
    if typed and not text.strip() and not timed_out and (truncated or not answer.text[len(typed) :].strip()):
        raise Mismatch
    if len(text) > len(shown):
        yield TextPart(text[len(shown) :])
    reason = FinishReason.TIMEOUT if timed_out else answer.reason or FinishReason.STOP
    if not text and reason is not FinishReason.TIMEOUT:
        reason = FinishReason.EMPTY
    yield Completion(text, reason, draft.replace_after, answer.timings)


def _earlier(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


async def _passed(grown: Callable[[], Awaitable[None]], until: float | None) -> bool:
    """Wait until there is more of the answer; whether that time came first."""
    try:
        async with asyncio.timeout_at(until):
            await grown()
    except TimeoutError:
        return True
    return False


def _complete_so_far(answer: Answer, typed: str, place: Place, shown: str) -> Completion | None:
    """What can be shown of an unfinished answer; None for nothing."""
    draft = place.process(answer.text[len(typed) :], final=True, truncated=True)
    if not draft.text.strip():
        return None
    text = _going_on(place.written(draft), shown)
    return Completion(text, FinishReason.TIMEOUT, draft.replace_after, answer.timings, more=True)


def _going_on(text: str, shown: str) -> str:
    """The text, or what was shown should it not begin with that: steps keep what they gave, as a test holds them to."""
    return text if text.startswith(shown) else shown
