"""The answer to a job as a stream of text: from the cache where that will do, else from the model.

In this order: a finished generation that goes on with what was typed since; the one that is running, if it agrees; a
new one, after a pause where the next key would only be in its way. Whichever it is, its text is read in the same way
(``follow``): the text typed since it began is taken off, and the rest is post-processed as if the model had been asked
here. Decoding is stopped as soon as post-processing says that nothing can be added to the text. The engine's
last chunk is then missing. The chunk before it has the timings; waiting for exact ones would cost the time that
stopping saves. What a request means (adapter, task, limits) is decided in ``service``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass

from peft_core.api_types import FinishReason, Origin, Timings
from peft_core.code.document import Document
from peft_core.decisions import Decider
from peft_core.settings import Settings
from peft_daemon.completion.cache import GeneratedText, Generation, GenerationCache
from peft_daemon.completion.confidence import evidence, probability, sure_part
from peft_daemon.completion.job import MAX_UNREAD_TOKENS, CompletionJob, Limits, RequestBuilder
from peft_daemon.completion.postprocess.boundaries import (
    drop_blank,
    drop_comments_above,
    drop_following,
    drop_misfits,
    fit_closing,
    limit_scope,
    one_line,
    whole_lines,
)
from peft_daemon.completion.postprocess.cleanup import (
    Draft,
    Step,
    circles,
    cut_repetition,
    drop_remarks,
    drop_repetition,
    drop_secrets,
    drop_usage,
    fit_indentation,
    place_at_cursor,
    strip_chat,
    use_document_style,
)
from peft_daemon.completion.prefetch import Prefetcher
from peft_daemon.completion.scheduler import Deadlines, Scheduler, TypingRhythm
from peft_daemon.engines.base import Engine, GenerationRequest

MAX_EXTRA_JOIN_TOKENS = 16
"""Prompt tokens that a running generation may have to read more than a new one would, and still be waited for."""

FILL_STEPS: tuple[Step, ...] = (
    strip_chat,
    drop_remarks,
    drop_secrets,
    use_document_style,
    one_line,
    cut_repetition,
    drop_following,
    limit_scope,
    fit_closing,
    whole_lines,
    fit_indentation,
    drop_misfits,
    drop_blank,
)
"""Post-processing of a text that goes into a document at the cursor, in order."""
INTENT_STEPS: tuple[Step, ...] = (
    strip_chat,
    drop_secrets,
    drop_comments_above,
    drop_usage,
    drop_repetition,
    whole_lines,
    place_at_cursor,
    drop_blank,
)
"""Post-processing of an answer to a sentence, in order."""


class Mismatch(Exception):
    """The text does not go on with what was typed since it began, or ends there, or too soon behind it."""


@dataclass(frozen=True)
class Completion:
    """The end of a stream."""

    text: str
    """In the document's own line endings."""
    reason: FinishReason
    replace_after: int = 0
    """Characters after the cursor that the text overwrites."""
    timings: Timings = Timings()
    more: bool = False
    """The model goes on: this is what was complete at the display deadline."""
    model: str = ""
    """Name of the model that wrote it, where that is not the engine's own."""
    emptied_by: str = ""
    """The step of post-processing that left nothing of what the model wrote; empty: it left something."""
    confidence: float | None = None
    """How likely the text is right, from 0 to 1; None: the engine does not say."""
    doubt: float | None = None
    """How likely it would be with what was left out because that is too little; None: nothing was."""


NOTHING = Completion("", FinishReason.EMPTY)
"""The end of a job that the model is not asked about."""


@dataclass
class StreamStats:
    """How a job was answered, as far as that is known already."""

    origin: Origin = Origin.MODEL
    queue_ms: float = 0.0
    pause_ms: float = 0.0
    """The pause in typing that was waited for."""
    decider: Decider | None = None
    """The part that has the job, where that is not the model."""
    generation: Generation | None = None
    """The one that answers, once there is one."""

    @property
    def stage(self) -> str:
        """How far the model is, in words."""
        if self.generation is None:
            return "before the model was asked"
        if self.generation.slot is None:
            return "while it waited for the engine"
        return "while the model wrote" if self.generation.generated.text else "while the model read the prompt"


class Completer:
    """Answers the jobs of one engine; ``on_generated`` is called with the timings of every generation at its end."""

    def __init__(
        self, engine: Engine, scheduler: Scheduler, limits: Limits, on_generated: Callable[[Timings], None]
    ) -> None:
        self._scheduler, self._limits = scheduler, limits
        self._on_generated = on_generated
        self.rhythm = TypingRhythm()
        self._requests = RequestBuilder(engine, limits)
        self._cache = GenerationCache(engine, scheduler, self._generated)
        self.prefetcher = Prefetcher(self._cache, self._requests, self._has_text)

    async def run(
        self, job: CompletionJob, stats: StreamStats, deadlines: Deadlines
    ) -> AsyncGenerator[str | Completion, None]:
        """Yield parts of the text as soon as they are certain, then the Completion, which is all of them.

        ``stats`` is filled with how it came about. At the answer deadline the Completion holds what is complete.
        Closing the generator stops decoding, unless another request reads the same generation.

        Raises DeadlinePassed when the model was not asked by the answer deadline, Superseded when a newer request for
        the document comes, InvalidInput when the prompt cannot fit, and what the engine raises.
        """
        document = job.document_key
        if job.automatic and document:
            self.rhythm.key(document)
        # The running generation must not end with the request this one supersedes before it was looked at.
        running = self._cache.running(document)
        with running.held() if running else nullcontext(), self._scheduler.newest(document) as ticket:
            self.prefetcher.forget(document)
            items = self._parts(job, stats, deadlines)
            async with aclosing(items if document is None else ticket.guard(items)) as parts:
                async for part in parts:
                    yield part

    async def close(self) -> None:
        """End everything that runs."""
        self.prefetcher.close()
        await self._cache.close()

    async def _parts(
        self, job: CompletionJob, stats: StreamStats, deadlines: Deadlines
    ) -> AsyncGenerator[str | Completion, None]:
        if (hopeless := job.hopeless) is not None:
            stats.decider = hopeless
            yield NOTHING
            return
        for generation, typed in self._cache.matches(job):
            if job.automatic and await deadlines.within(self._is_slower(generation, job)):
                continue
            stats.origin = Origin.KEPT if generation.generated.over else Origin.JOINED
            stats.decider = Decider.AHEAD if generation.ahead else Decider(stats.origin)
            with contextlib.suppress(Mismatch):
                async for part in self._read(generation, typed, job, stats, deadlines):
                    yield part
                return
        stats.origin, stats.decider, stats.generation = Origin.MODEL, job.unwanted, None
        if stats.decider is not None:
            yield NOTHING
            return
        if job.document_key is not None:
            self._cache.stop(job.document_key)
            if job.automatic:
                pause_s = self.rhythm.pause_s(job.document_key)
                stats.decider, stats.pause_ms = Decider.TYPING_PAUSE, 1000 * pause_s
                await asyncio.sleep(pause_s)
                stats.decider = None
        request = await deadlines.within(self._request(job))
        async for part in self._read(self._cache.begin(job, request), "", job, stats, deadlines):
            yield part

    async def _request(self, job: CompletionJob) -> GenerationRequest:
        if not job.automatic:
            return await self._requests.full(job)
        request, _ = await self._requests.quickest(job)
        return request

    async def _is_slower(self, generation: Generation, job: CompletionJob) -> bool:
        """Whether a generation has so much to read before its first token that a new one would be sooner."""
        left = generation.unread
        if left <= MAX_EXTRA_JOIN_TOKENS:
            return False
        _, unread = await self._requests.quickest(job)
        return unread + MAX_EXTRA_JOIN_TOKENS < left

    async def _read(
        self, generation: Generation, typed: str, job: CompletionJob, stats: StreamStats, deadlines: Deadlines
    ) -> AsyncGenerator[str | Completion, None]:
        """Stream a generation to a request that waits for it."""
        stats.generation = generation
        with generation.read() as grown:
            async with aclosing(_shown(generation, grown, typed, job, deadlines)) as parts:
                async for part in parts:
                    if isinstance(part, Completion):
                        stats.queue_ms = generation.queue_ms
                    yield part

    async def _has_text(self, generation: Generation, typed: str, job: CompletionJob) -> bool:
        """Whether there is something to show of a background generation in the end."""
        try:
            with generation.watch() as grown:
                async for _ in _shown(generation, grown, typed, job, Deadlines(0.0)):
                    pass
        except Mismatch:
            return False
        return True

    def _generated(self, generated: GeneratedText) -> None:
        timings = generated.timings
        self._on_generated(timings)
        if timings.decode_tokens or generated.reason is not None:
            self._limits.note(timings)
        if timings.decode_tokens and timings.prompt_evaluated <= MAX_UNREAD_TOKENS:
            self.rhythm.answered(timings.first_token_ms, timings.decode_ms / timings.decode_tokens)


async def complete_once(engine: Engine, job: CompletionJob) -> Completion:
    """Complete a job with an engine of the caller's own: no queue, and no cache of other jobs.

    Raises InvalidInput when the prompt cannot fit, and what the engine raises.
    """
    completer = Completer(engine, Scheduler(1), Limits(Settings()), lambda _: None)
    now = asyncio.get_running_loop().time()
    try:
        async with aclosing(completer.run(job, StreamStats(), Deadlines(now))) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    return part
    finally:
        await completer.close()
    raise AssertionError("a stream ends with its Completion")


async def _shown(
    generation: Generation, grown: Callable[[], Awaitable[None]], typed: str, job: CompletionJob, deadlines: Deadlines
) -> AsyncGenerator[str | Completion, None]:
    """Follow a generation up to the end of the text; it ends as soon as all that can be shown of it is there."""
    display_at = deadlines.display_at(generation.began)
    following = follow(
        generation.generated, grown, job, typed=typed, display_at=display_at, answer_at=deadlines.answer_at
    )
    shown = 0
    async with aclosing(following) as parts:
        async for part in parts:
            if isinstance(part, Completion):
                if part.more:
                    generation.linger()
                elif part.reason is not FinishReason.TIMEOUT:
                    generation.suffice()
                if len(part.text) > shown:
                    yield part.text[shown:]
            else:
                shown += len(part)
            yield part


async def follow(
    generated: GeneratedText,
    grown: Callable[[], Awaitable[None]],
    job: CompletionJob,
    *,
    typed: str = "",
    display_at: float | None = None,
    answer_at: float | None = None,
) -> AsyncGenerator[str | Completion, None]:
    """Yield parts of the text as soon as they are certain, then the Completion, whose text begins with them.

    ``grown`` returns when there is more. ``typed`` was typed since the generation began. At ``display_at`` (of the
    event loop's clock) whatever is complete is the Completion, with ``more``; where nothing is, the first that will be.
    At ``answer_at`` it is whatever is complete, though that be nothing. Raises Mismatch, before anything was yielded,
    when the text is of no use here, or was cut off before what belongs here was whole.
    """
    shown, looked, draft = "", len(typed), Draft("", job.extent)
    late = timed_out = endless = False
    doubt: float | None = None
    was_cut = generated.cut_off
    while True:
        if not generated.agrees(typed):
            raise Mismatch
        news, looked = generated.text[looked:], max(looked, len(generated.text))
        if "\n" in news:
            text, doubt = _sure_text(generated, typed, job, over=False)
            draft = postprocess(job, text, final=doubt is not None)
            if draft.done or doubt is not None:
                break
            so_far = _insertion(job, draft)
            if len(so_far) > len(shown) and so_far.startswith(shown):
                yield so_far[len(shown) :]
                shown = so_far
        endless = circles(generated.text[len(typed) :])
        if generated.over or timed_out or endless:
            break
        if late and (early := _complete_so_far(generated, typed, job, shown)) is not None:
            yield early
            return
        passed = await _passed(grown, _earlier(None if late else display_at, answer_at))
        timed_out = passed and answer_at is not None and asyncio.get_running_loop().time() >= answer_at
        late = passed or late
    truncated = timed_out or endless
    if not draft.settled:
        stopped = generated.cut_off or generated.reason in (FinishReason.LENGTH, FinishReason.TIMEOUT)
        text, doubt = _sure_text(generated, typed, job, over=True)
        if was_cut and doubt is None and not shown:
            raise Mismatch  # it was ended when another reader had enough; more of it belongs here
        truncated = (truncated or stopped) and doubt is None
        draft = postprocess(job, text, final=True, truncated=truncated)
    text = _going_on(_insertion(job, draft), shown)
    rest = generated.text[len(typed) :]
    if typed and not text.strip() and not timed_out and doubt is None and (truncated or not rest.strip()):
        raise Mismatch
    reason = FinishReason.TIMEOUT if timed_out else generated.reason or FinishReason.STOP
    if not text and reason is not FinishReason.TIMEOUT:
        reason = FinishReason.EMPTY
    yield Completion(
        text,
        reason,
        draft.replace_after,
        generated.timings,
        model=generated.model,
        emptied_by="" if text else emptied_by(job, rest, truncated=truncated),
        confidence=_confidence(generated, typed, text),
        doubt=doubt,
    )


def _sure_text(generated: GeneratedText, typed: str, job: CompletionJob, *, over: bool) -> tuple[str, float | None]:
    """Return the part of a generation that is sure enough for the job, and how likely more of it would be right."""
    text = generated.text[len(typed) :]
    end, doubt = sure_part(text, generated.tokens, len(typed), job.target, least=job.least_confidence, over=over)
    return text[:end], doubt


def _confidence(generated: GeneratedText, typed: str, text: str) -> float | None:
    return probability(evidence(generated.tokens, len(typed), len(typed) + len(text)))


def _earlier(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


async def _passed(grown: Callable[[], Awaitable[None]], until: float | None) -> bool:
    """Wait until there is more of the text; whether that time came first."""
    try:
        async with asyncio.timeout_at(until):
            await grown()
    except TimeoutError:
        return True
    return False


def _complete_so_far(generated: GeneratedText, typed: str, job: CompletionJob, shown: str) -> Completion | None:
    """The Completion of an unfinished text; None where nothing can be shown."""
    text = generated.text[len(typed) :]
    sure, doubt = _sure_text(generated, typed, job, over=False)
    # Within its line a sure part ends behind a whole expression; of several lines those that are complete are shown.
    ends_whole = job.least_confidence > 0 and "\n" not in text
    draft = postprocess(job, sure if ends_whole else text, final=True, truncated=not ends_whole)
    if not draft.text.strip() or doubt is not None:
        return None
    text = _going_on(_insertion(job, draft), shown)
    return Completion(
        text,
        FinishReason.TIMEOUT,
        draft.replace_after,
        generated.timings,
        more=True,
        model=generated.model,
        confidence=_confidence(generated, typed, text),
    )


def _going_on(text: str, shown: str) -> str:
    """The text, or what was shown should it not begin with that: steps keep what they gave, as a test holds them to."""
    return text if text.startswith(shown) else shown


def postprocess(job: CompletionJob, text: str, *, final: bool = False, truncated: bool = False) -> Draft:
    """Return the part of a text that is worth showing where the job's answer goes."""
    steps = FILL_STEPS if job.fills else INTENT_STEPS
    return apply_steps(steps, Draft(text, job.extent, final=final, truncated=truncated), job.target)


def emptied_by(job: CompletionJob, text: str, *, truncated: bool) -> str:
    """Return the name of the step that leaves nothing of a text; empty where one is not to blame."""
    draft = Draft(text, job.extent, final=True, truncated=truncated)
    for step in FILL_STEPS if job.fills else INTENT_STEPS:
        had, draft = draft.text.strip(), step(draft, job.target)
        if had and not draft.text.strip():
            return step.__name__
    return ""


def apply_steps(steps: tuple[Step, ...], draft: Draft, document: Document) -> Draft:
    """Apply the steps in order; of a draft that may still grow they see only the complete lines.

    A settled draft begins with what unsettled drafts of the same answer gave, so they can be shown while it is written.
    """
    if not draft.settled:
        draft = draft.hold(draft.text.rfind("\n") + 1)
    for step in steps:
        draft = step(draft, document)
    return draft


def _insertion(job: CompletionJob, draft: Draft) -> str:
    """The draft as it goes into the document."""
    return job.target.restore(job.lead + draft.text) if draft.text else ""
