"""Completions as fast as they can be: from what is known already where that will do, else from the model.

In this order: an earlier answer that goes on with what was typed since; the one that is being written, if it agrees;
a new one, after a pause where the next key would only be in its way. While a suggestion is read, the one that follows
it is prepared. Does not cover what a request means (adapter, task, limits): see ``service``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import msgspec

from peft_core.api_types import AdapterUse, FinishReason, Origin, Timings, WarmResponse
from peft_core.errors import PeftDaemonError
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.answer import Question
from peft_daemon.completion.deadlines import DeadlinePassed
from peft_daemon.completion.following import Completion, Mismatch, Place, TextPart, follow
from peft_daemon.completion.generations import Generation, Generations, Match
from peft_daemon.completion.next_line import enter
from peft_daemon.completion.pipeline import NOTHING, Job, Prepared, is_hopeless, place_of
from peft_daemon.completion.prompts import AT_HAND, Prompts, only_read
from peft_daemon.completion.rhythm import Rhythm
from peft_daemon.completion.scheduler import Scheduler
from peft_daemon.engines.base import Engine

T = TypeVar("T")

LOOK_AHEAD_S = 0.12
"""How long a suggestion is on the screen before the one after it is prepared: who types on does not wait for that."""
REFUSED_S = 0.05
"""How long reading ahead waits before it looks again whether nobody waits for an answer."""
SLOWER = 16
"""Prompt tokens that a running generation may have to read more than a new one would, and still be waited for."""

Reading = Callable[[], AbstractContextManager[Callable[[], Awaitable[None]]]]
"""``Generation.read`` or ``Generation.watch``."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A request understood: what to complete, with which adapter, and what earlier answers are told by."""

    job: Job
    lease: AdapterLease | None
    use: AdapterUse | None
    question: Question | None
    """None: no other answer may be used for it."""
    automatic: bool

    @property
    def document(self) -> str | None:
        """The key under which newer requests supersede it."""
        return self.question.document if self.question else None


@dataclass(frozen=True)
class Patience:
    """How long a client waits for a whole answer before it is shown what is complete."""

    since: float
    """When it asked, by the event loop's clock."""
    seconds: float | None
    until: float | None = None
    """When it must have an answer, by the event loop's clock."""

    def show_at(self, began: float) -> float | None:
        """When to show something of a generation that began then: whoever joins one has waited as long as it runs."""
        return None if self.seconds is None else min(self.since, began) + self.seconds


@dataclass
class Work:
    """How a request was answered."""

    origin: Origin = Origin.MODEL
    queue_ms: float = 0.0


def _with_typed(job: Job, typed: str) -> Job:
    return replace(job, document=replace(job.document, prefix=job.document.prefix + typed))


class Completer:
    """All completions of one engine. ``generated`` is told the work of every generation when it ends."""

    def __init__(self, engine: Engine, scheduler: Scheduler, generated: Callable[[Timings], None]) -> None:
        self._prompts = Prompts(engine)
        self._scheduler = scheduler
        self._told = generated
        self._rhythm = Rhythm()
        self._generations = Generations(engine, scheduler, self._generated)
        self._ahead: dict[str, asyncio.Task[None]] = {}
        """Of each document, what prepares the suggestion after the next."""
        self._reading = BackgroundTasks(log, "reading a prompt ahead failed")
        self._newest_warm = object()

    async def run(
        self, wanted: Wanted, work: Work, *, show_after_ms: int | None, deadline: float | None = None
    ) -> AsyncGenerator[TextPart | Completion, None]:
        """Parts, then the Completion; notes in ``work`` how it came about.

        At ``deadline``, by the event loop's clock, the Completion is what is complete. Raises DeadlinePassed when the
        model was not asked by then, Superseded when a newer request for the document comes, and what the engine raises.
        """
        document = wanted.document
        show_after_s = None if show_after_ms is None else show_after_ms / 1000
        patience = Patience(asyncio.get_running_loop().time(), show_after_s, deadline)
        if wanted.automatic and document:
            self._rhythm.key(document)
        # What runs for the document must not end with the request this one supersedes before it was looked at.
        running = self._generations.running(document)
        with running.held() if running else nullcontext(), self._scheduler.newest(document) as ticket:
            self._forget_ahead(document)
            async with aclosing(ticket.guard(self._parts(wanted, work, patience))) as parts:
                async for part in parts:
                    yield part

    async def warm(self, wanted: Wanted) -> WarmResponse:
        """Read the prompts of a request that is likely to come, as soon as nobody waits for an answer.

        A completion for the same document ends it, and so does a newer one of this. Raises what the engine raises.
        """
        mine = self._newest_warm = object()
        # The cursor is here now: what is prepared elsewhere must not take this one's place.
        self._end_preparing(besides=wanted.document)
        if (ahead := self._ahead.get(wanted.document or "")) is not None:
            # What it writes is worth more than what would be read instead, and is soon done.
            await asyncio.wait((ahead,))
        if wanted.question is None or is_hopeless(wanted.job):
            return WarmResponse(warm=False)
        spent = Timings()
        for prepared in await self._prompts.to_read(wanted.job, wanted.lease):
            while True:
                running = self._generations.running(wanted.document)
                if self._newest_warm is not mine or (running is not None and running.claimed):
                    return WarmResponse(warm=False, timings=spent)
                generation = self._generations.begin_spare(prepared, wanted.question)
                await _ended(generation)
                if not generation.refused:
                    break
                await asyncio.sleep(REFUSED_S)
            spent = _together(spent, generation.answer.timings)
            if generation.answer.cut_off:
                return WarmResponse(warm=False, timings=spent)
        return WarmResponse(warm=True, timings=spent)

    def look_ahead(self, wanted: Wanted) -> None:
        """Prepare what will be asked for once a suggestion is accepted, in the pause in which it is read."""
        if wanted.document is not None:
            self._forget_ahead(wanted.document)
            task = self._ahead[wanted.document] = asyncio.create_task(self._go_ahead(wanted))
            task.add_done_callback(partial(self._ahead_is_over, wanted.document))

    async def close(self) -> None:
        """End everything that runs."""
        self._end_preparing()
        await self._generations.close()

    async def _parts(
        self, wanted: Wanted, work: Work, patience: Patience
    ) -> AsyncGenerator[TextPart | Completion, None]:
        """The completion, from an earlier answer where one goes on with the document, else from the model."""
        job, question = wanted.job, wanted.question
        if is_hopeless(job):
            yield NOTHING
            return
        place = place_of(job)
        for match in self._generations.matches(question, place.document) if question else ():
            if wanted.automatic and await _within(patience, self._is_slower(match.generation, wanted)):
                continue
            work.origin = Origin.KEPT if match.generation.answer.over else Origin.JOINED
            with contextlib.suppress(Mismatch):
                async for part in self._read(match, match.generation.read, place, work, patience):
                    yield part
                return
        work.origin = Origin.MODEL
        if question is not None:
            self._generations.stop(question.document)
            if wanted.automatic:
                await asyncio.sleep(self._rhythm.pause_s(question.document))
        preparing = self._quickest(wanted) if wanted.automatic else self._prompts.full(wanted.job, wanted.lease)
        prepared = await _within(patience, preparing)
        generation = self._generations.begin(prepared, question)
        async for part in self._read(Match(generation, ""), generation.read, place, work, patience):
            yield part

    async def _quickest(self, wanted: Wanted) -> Prepared:
        return (await self._prompts.quickest(wanted.job, wanted.lease)).prepared

    async def _is_slower(self, generation: Generation, wanted: Wanted) -> bool:
        """Whether a generation has so much to read before it says anything that a new one would be sooner."""
        left = generation.unread
        if left <= SLOWER:
            return False
        return (await self._prompts.quickest(wanted.job, wanted.lease)).unread + SLOWER < left

    async def _read(
        self, match: Match, reading: Reading, place: Place, work: Work, patience: Patience
    ) -> AsyncGenerator[TextPart | Completion, None]:
        generation = match.generation
        show_at = patience.show_at(generation.began)
        with reading() as grown:
            following = follow(
                generation.answer, grown, place, typed=match.typed, show_at=show_at, end_at=patience.until
            )
            async with aclosing(following) as parts:
                async for part in parts:
                    if isinstance(part, Completion):
                        work.queue_ms = generation.queue_ms
                        if part.more:
                            generation.linger()
                        elif part.reason is not FinishReason.TIMEOUT:
                            generation.suffice()
                    yield part

    async def _go_ahead(self, wanted: Wanted) -> None:
        await asyncio.sleep(LOOK_AHEAD_S)
        if wanted.question is None or is_hopeless(wanted.job):
            return
        with contextlib.suppress(PeftDaemonError):
            await self._answer_ahead(wanted, wanted.question)
            # What was answered from a short prompt deserves the full one, while nobody waits for anything.
            self._reading.spawn(self._read_on(wanted, wanted.question))

    async def _answer_ahead(self, wanted: Wanted, question: Question) -> None:
        """Have an answer ready for the place, or for the next line if its own is finished."""
        here = place_of(wanted.job)
        typed = enter(here.document, here.cursor) or ""
        # A finished line wants no more; what will be asked for is the next one.
        place = place_of(_with_typed(wanted.job, typed)) if typed else here
        for match in self._generations.matches(question, place.document):
            if await self._serves(match, place):
                return
        generation = self._generations.begin_spare(await self._quickest(wanted), question)
        with generation.held():
            if await self._serves(Match(generation, typed), place):
                return
            # It still tells that nothing follows where Enter was not pressed.
            await self._serves(Match(generation, ""), here)
        entered = replace(wanted, job=_with_typed(wanted.job, typed))
        await self._serves(Match(self._generations.begin_spare(await self._quickest(entered), question), ""), place)

    async def _read_on(self, wanted: Wanted, question: Question) -> None:
        with contextlib.suppress(PeftDaemonError):
            prepared = only_read(await self._prompts.full(wanted.job, wanted.lease))
            if self._generations.running(question.document) is None:
                await _ended(self._generations.begin_spare(prepared, question))

    async def _serves(self, match: Match, place: Place) -> bool:
        """Whether there is something to show of it in the end; nobody waits for that."""
        try:
            async for _ in self._read(match, match.generation.watch, place, Work(), Patience(0.0, None)):
                pass
        except Mismatch:
            return False
        return True

    def _end_preparing(self, *, besides: str | None = None) -> None:
        for document in [each for each in self._ahead if each != besides]:
            self._forget_ahead(document)
        self._reading.cancel()

    def _forget_ahead(self, document: str | None) -> None:
        if document is not None and (task := self._ahead.pop(document, None)) is not None:
            task.cancel()

    def _ahead_is_over(self, document: str, task: asyncio.Task[None]) -> None:
        if self._ahead.get(document) is task:
            del self._ahead[document]

    def _generated(self, timings: Timings) -> None:
        self._told(timings)
        if timings.decode_tokens and timings.prompt_evaluated <= AT_HAND:
            self._rhythm.answered(timings.first_token_ms, timings.decode_ms / timings.decode_tokens)


async def _within(patience: Patience, work: Awaitable[T]) -> T:
    """The result of ``work``; raises DeadlinePassed when it takes too long."""
    try:
        async with asyncio.timeout_at(patience.until):
            return await work
    except TimeoutError:
        raise DeadlinePassed from None


async def _ended(generation: Generation) -> None:
    """Keep a generation going until it is over; raises what the engine raised."""
    with generation.watch() as grown:
        while not generation.answer.over:
            await grown()


def _together(one: Timings, other: Timings) -> Timings:
    """Two readings as one: the second's prompt, the work of both."""
    return msgspec.structs.replace(
        other,
        prompt_evaluated=one.prompt_evaluated + other.prompt_evaluated,
        prompt_ms=one.prompt_ms + other.prompt_ms,
        engine_ms=one.engine_ms + other.engine_ms,
    )
