"""Generations that outlive the request they were begun for: running ones can be joined, finished ones are kept.

A generation runs in a task of its own and ends when nobody reads it any more, when it is done, or (a spare one, begun
before anybody asked) when somebody else needs its place. One document has one running generation at a time: the next
begins when the one before it has left the engine, so that it finds what that one put into the KV cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

from peft_core.api_types import FinishReason, Timings
from peft_core.code.document import Document
from peft_core.tasks import BackgroundTasks
from peft_daemon.completion.answer import Answer, Question, typed_since
from peft_daemon.completion.pipeline import Prepared
from peft_daemon.completion.scheduler import NoPlace, Place, Scheduler
from peft_daemon.engines.base import Engine

KEPT = 64
"""Answers that are remembered, of all documents together."""
LINGER_S = 1.0
"""How long a generation goes on for a client that was shown the beginning and has not asked for the rest yet."""


log = logging.getLogger(__name__)


class Generation:
    """One answer in the making, or made."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.began = asyncio.get_running_loop().time()
        self.queue_ms = 0.0
        self.task: asyncio.Task[None] | None = None
        self.place: Place | None = None
        self.error: Exception | None = None
        self.sufficed = False
        """It was ended because its reader had all that can be shown."""
        self.refused = False
        """It found no place: somebody waited for an answer."""
        self.claimed = False
        """Somebody waits for it, or did."""
        self._readers = 0
        self._change = asyncio.Event()
        self._version = 0

    @contextlib.contextmanager
    def read(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """``watch`` for somebody who waits for it: a spare generation gives way to nobody any more."""
        self.claimed = True
        if self.place is not None:
            self.place.keep()
        with self.watch() as grown:
            yield grown

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Keep it going for the block: gives what waits for more of it, and raises what the engine raised."""
        version = self._version

        async def grown() -> None:
            nonlocal version
            while version == self._version:
                await self._change.wait()
            version = self._version
            if self.error is not None:
                raise self.error

        with self.held():
            yield grown

    def linger(self) -> None:
        """Go on for a moment though nobody reads."""
        self._readers += 1
        asyncio.get_running_loop().call_later(LINGER_S, self._leave)

    @property
    def unread(self) -> int:
        """Prompt tokens to be read before it says anything; 0 where it has said something, or nobody knows."""
        timings = self.answer.timings
        if self.answer.over or self.answer.text or timings.decode_tokens:
            return 0
        return max(0, timings.prompt_tokens - timings.prompt_reused - timings.prompt_evaluated)

    @property
    def unfit(self) -> bool:
        """Whether it ended in a way that says nothing about what the model would have written."""
        interrupted = self.answer.cut_off and not self.sufficed
        return self.error is not None or interrupted or self.answer.reason is FinishReason.TIMEOUT

    def suffice(self) -> None:
        """End it now, as a reader has all of it that can be shown."""
        self.sufficed = self.sufficed or not self.answer.cut_off
        self.stop()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from ending for want of readers for the block."""
        self._readers += 1
        try:
            yield
        finally:
            self._leave()

    def stop(self) -> None:
        """End it now; a finished one stays as it is."""
        self.answer.cut()
        self.changed()
        if self.task is not None:
            self.task.cancel()

    def changed(self) -> None:
        """There is more of it."""
        self._version += 1
        self._change.set()
        self._change = asyncio.Event()

    def _leave(self) -> None:
        self._readers -= 1
        if not self._readers:
            self.stop()


@dataclass(frozen=True)
class Match:
    """A generation that goes on with a document, and what was typed there since it began."""

    generation: Generation
    typed: str


class Generations:
    """The running and the kept generations of one engine."""

    def __init__(self, engine: Engine, scheduler: Scheduler, ended: Callable[[Timings], None]) -> None:
        self._engine, self._scheduler, self._ended = engine, scheduler, ended
        self._kept: OrderedDict[Generation, Question] = OrderedDict()
        self._running: dict[str, list[Generation]] = {}
        """Of each document; all but the last are being stopped."""
        self._tasks = BackgroundTasks(log, "a generation failed")

    def matches(self, question: Question, document: Document) -> list[Match]:
        """What may answer at ``document`` without a new generation, the most recent text first."""
        found = []
        for generation, asked in self._kept.items():
            if asked != question or generation.unfit:
                continue
            typed = typed_since(generation.answer, document)
            if typed is None or not generation.answer.agrees(typed):
                continue
            if typed and generation.answer.over and not generation.answer.text[len(typed) :].strip():
                continue
            found.append(Match(generation, typed))
        found.sort(key=lambda match: len(match.typed))
        return found

    def running(self, document: str | None) -> Generation | None:
        """The running generation of a document."""
        return self._running[document][-1] if document in self._running else None

    def stop(self, document: str | None) -> None:
        """End what runs for a document."""
        for generation in self._running.get(document or "", ()):
            generation.stop()

    def begin(self, prepared: Prepared, question: Question | None) -> Generation:
        """Generate for somebody who reads it; it waits for its place.

        With a question it is remembered, and a running one of the same document ends first.
        """
        generation = self._new(prepared, question)
        self._start(generation, prepared, question, self._scheduler.place())
        return generation

    def begin_spare(self, prepared: Prepared, question: Question) -> Generation:
        """Generate what is likely to be asked for, if there is a place nobody wants, until somebody wants it."""
        generation = self._new(prepared, question)
        self._start(generation, prepared, question, self._scheduler.spare_place(generation.stop))
        return generation

    async def close(self) -> None:
        """End all of them."""
        await self._tasks.end()

    def _new(self, prepared: Prepared, question: Question | None) -> Generation:
        generation = Generation(Answer(prepared.place.document, prepared.request.begins_with))
        if question is not None and prepared.request.max_tokens:
            self._kept[generation] = question
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return generation

    def _start(
        self,
        generation: Generation,
        prepared: Prepared,
        question: Question | None,
        placing: AbstractAsyncContextManager[Place],
    ) -> None:
        before: list[asyncio.Task[None]] = []
        if question is not None:
            self.stop(question.document)
            others = self._running.setdefault(question.document, [])
            before = [each.task for each in others if each.task is not None]
            others.append(generation)
        task = generation.task = self._tasks.spawn(self._run(generation, prepared, before, placing))

        def ended(_: asyncio.Task[None]) -> None:
            # A task that is cancelled before its first step never came to say so itself.
            generation.answer.cut()
            generation.changed()
            self._ended(generation.answer.timings)
            if question is not None:
                others = self._running[question.document]
                others.remove(generation)
                if not others:
                    del self._running[question.document]
            if generation.unfit:
                self._kept.pop(generation, None)

        task.add_done_callback(ended)

    async def _run(
        self,
        generation: Generation,
        prepared: Prepared,
        before: list[asyncio.Task[None]],
        placing: AbstractAsyncContextManager[Place],
    ) -> None:
        answer = generation.answer
        try:
            if before:
                await asyncio.wait(before)
            async with placing as place:
                generation.place, generation.queue_ms = place, place.queue_ms
                if generation.claimed:
                    place.keep()
                async with aclosing(self._engine.generate(prepared.request)) as items:
                    async for item in items:
                        answer.add(item)
                        generation.changed()
                        if answer.over:
                            break
        except NoPlace:
            generation.refused = True
            answer.cut()
        except Exception as error:  # whoever reads it is told
            generation.error = error
        finally:
            answer.cut()
            generation.changed()
