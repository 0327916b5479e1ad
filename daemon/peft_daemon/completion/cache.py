"""Generations that outlive the request they were begun for: running ones can be joined, finished ones are cached.

A generation runs in a task of its own. It ends when it is done, when no request reads it any more, or, if it runs in
the background, when a request needs the engine. One document has one running generation at a time: the next begins
when the one before it has left the engine, so that it finds what that one put into the KV cache. Texts are kept as
the model wrote them; what is shown of them is decided anew for each request (``stream``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

from peft_core.api_types import FinishReason, Timings
from peft_core.code.document import Document, normalize_newlines
from peft_core.tasks import BackgroundTasks
from peft_daemon.completion.confidence import WrittenToken
from peft_daemon.completion.job import CacheKey, CompletionJob
from peft_daemon.completion.prompt import contradicts, unheld
from peft_daemon.completion.scheduler import NoFreeSlot, Scheduler, SchedulerSlot
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest

log = logging.getLogger(__name__)

MAX_CACHED_GENERATIONS = 64
"""Of all documents together."""
LINGER_S = 1.0
"""How long a generation goes on for a client that was shown the beginning and has not asked for the rest yet."""
MIN_CUT_PREFIX_CHARACTERS = 32_000
"""Length from which on a client may have cut the text before the cursor, at another place each time."""
ANCHOR_CHARACTERS = 1_000
EDITOR_CLOSERS = frozenset(")]}\"'`")
MAX_EDITOR_CLOSERS = 3
"""Brackets and quotes right after the cursor that an editor inserts or types over by itself."""


class GeneratedText:
    """One generation's text as it grows; ``prefix`` and ``suffix`` are what stood around it when it began."""

    def __init__(self, document: Document, held: str = "") -> None:
        self.prefix, self.suffix = document.prefix, document.suffix
        self.text = ""
        """The text that follows ``prefix``, with ``\\n`` line ends."""
        self.timings = Timings()
        self.reason: FinishReason | None = None
        """How the engine ended it; None while it runs and where it was ended from outside."""
        self.model = ""
        """Name of the model that writes it, where that is not the engine's own."""
        self.over = False
        self.cut_off = False
        """It was ended from outside: there was more to come."""
        self.tokens: list[WrittenToken] = []
        """What the engine said of the parts of ``text``, in order; none where it says nothing of its confidence."""
        self._raw, self._held = "", held

    def add(self, chunk: GenerationChunk) -> None:
        """Append the engine's next chunk; a text that contradicts what was typed is over, and empty."""
        self.timings, self.reason, self.model = chunk.timings, chunk.reason, chunk.model
        self._raw += chunk.text
        if contradicts(self._raw, self._held):
            self.text, self.over = "", True
            return
        begin = len(self.text)
        self.text, self.over = unheld(normalize_newlines(self._raw), self._held), chunk.reason is not None
        # A token had to begin with the word that the prompt held back: its probability says nothing of the rest.
        forced = self._held.strip() and len(self._raw) - len(chunk.text) < len(self._held)
        if len(self.text) > begin and not forced:
            self.tokens.append(WrittenToken(begin, len(self.text), chunk.logprob))

    def cut(self) -> None:
        """Note that it is ended from outside, or that it is over and stays so."""
        self.cut_off = self.cut_off or not self.over
        self.over = True

    def agrees(self, typed: str) -> bool:
        """Whether it begins with ``typed``, or may still."""
        return self.text.startswith(typed) or (not self.over and typed.startswith(self.text))


def typed_since(generated: GeneratedText, document: Document) -> str | None:
    """The text typed since the generation began; None where anything else was changed.

    Brackets and quotes right after the cursor may have come or gone, as editors insert the closing ones and let the
    user type over them.
    """
    if not same_behind(generated.suffix, document.suffix):
        return None
    old, new = generated.prefix, document.prefix
    if new.startswith(old):
        return new[len(old) :]
    if min(len(old), len(new)) < MIN_CUT_PREFIX_CHARACTERS:
        return None
    end = new.rfind(old[-ANCHOR_CHARACTERS:]) + ANCHOR_CHARACTERS
    overlap = min(end, len(old))
    return new[end:] if end > ANCHOR_CHARACTERS and new[end - overlap : end] == old[len(old) - overlap :] else None


def same_behind(old: str, new: str) -> bool:
    """Whether two texts after the cursor are the same but for closing brackets and quotes at their beginning."""
    longer, shorter = (old, new) if len(old) >= len(new) else (new, old)
    extra = longer[: len(longer) - len(shorter)]
    return len(extra) <= MAX_EDITOR_CLOSERS and EDITOR_CLOSERS.issuperset(extra) and longer.endswith(shorter)


class Generation:
    """One run of the model for a job, under way or over."""

    def __init__(self, generated: GeneratedText) -> None:
        self.generated = generated
        self.began = asyncio.get_running_loop().time()
        self.queue_ms = 0.0
        self.task: asyncio.Task[None] | None = None
        self.slot: SchedulerSlot | None = None
        self.error: Exception | None = None
        self.sufficed = False
        """It was ended because its reader had all that can be shown."""
        self.refused = False
        """It found no slot: a request waited for one."""
        self.ahead = False
        """No request had asked for it when it began."""
        self.claimed = False
        """A request waits for it, or did."""
        self._readers = 0
        self._change = asyncio.Event()
        self._version = 0

    @contextlib.contextmanager
    def read(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Watch it for a request that waits for it: a background generation gives way to no other any more."""
        self.claimed = True
        if self.slot is not None:
            self.slot.claim()
        with self.watch() as grown:
            yield grown

    @contextlib.contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Keep it going for the block; yields a function that waits for more of it.

        That function raises what the engine raised.
        """
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

    async def until_over(self) -> None:
        """Keep it going until it is over; raises what the engine raised."""
        with self.watch() as grown:
            while not self.generated.over:
                await grown()

    def linger(self) -> None:
        """Go on for a moment without a reader."""
        self._readers += 1
        asyncio.get_running_loop().call_later(LINGER_S, self._leave)

    @property
    def unread(self) -> int:
        """Prompt tokens to be read before its first token; 0 where that is there, or the number is not known."""
        timings = self.generated.timings
        if self.generated.over or self.generated.text or timings.decode_tokens:
            return 0
        return max(0, timings.prompt_tokens - timings.prompt_reused - timings.prompt_evaluated)

    @property
    def unfit(self) -> bool:
        """Whether it ended in a way that says nothing about what the model would have written."""
        interrupted = self.generated.cut_off and not self.sufficed
        return self.error is not None or interrupted or self.generated.reason is FinishReason.TIMEOUT

    def suffice(self) -> None:
        """End it now, as a reader has all of it that can be shown."""
        self.sufficed = self.sufficed or not self.generated.cut_off
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
        self.generated.cut()
        self.changed()
        if self.task is not None:
            self.task.cancel()

    def changed(self) -> None:
        """Wake those that wait for more of it."""
        self._version += 1
        self._change.set()
        self._change = asyncio.Event()

    def _leave(self) -> None:
        self._readers -= 1
        if not self._readers:
            self.stop()


class GenerationCache:
    """The running and the finished generations of one engine."""

    def __init__(self, engine: Engine, scheduler: Scheduler, on_end: Callable[[GeneratedText], None]) -> None:
        self._engine, self._scheduler, self._on_end = engine, scheduler, on_end
        self._cached: OrderedDict[Generation, CacheKey] = OrderedDict()
        self._running: dict[str, list[Generation]] = {}
        """Of each document; all but the last are being stopped."""
        self._tasks = BackgroundTasks(log, "a generation failed")

    def matches(self, job: CompletionJob) -> list[tuple[Generation, str]]:
        """The generations that may answer a job, each with the text typed since; the least typed first."""
        if job.document_key is None:
            return []
        found = []
        for generation, key in self._cached.items():
            generated = generation.generated
            if key != job.cache_key or generation.unfit:
                continue
            typed = typed_since(generated, job.target)
            if typed is None or not generated.agrees(typed):
                continue
            if typed and generated.over and not generated.text[len(typed) :].strip():
                continue
            found.append((generation, typed))
        found.sort(key=lambda match: len(match[1]))
        return found

    def running(self, document: str | None) -> Generation | None:
        """The running generation of a document."""
        return self._running[document][-1] if document in self._running else None

    def stop(self, document: str | None) -> None:
        """End the generations that run for a document."""
        for generation in self._running.get(document or "", ()):
            generation.stop()

    def begin(self, job: CompletionJob, request: GenerationRequest) -> Generation:
        """Generate for a request that reads it; it waits for its slot.

        With a ``document_key`` it is cached, and a running one of the same document ends first.
        """
        generation = self._new(job, request)
        self._start(generation, job, request, self._scheduler.slot())
        return generation

    def begin_background(self, job: CompletionJob, request: GenerationRequest) -> Generation:
        """Generate an answer that is likely to be asked for, until a request needs the engine for another."""
        generation = self._new(job, request)
        generation.ahead = True
        self._start(generation, job, request, self._scheduler.background_slot(generation.stop))
        return generation

    async def close(self) -> None:
        """End all of them."""
        await self._tasks.end()

    def _new(self, job: CompletionJob, request: GenerationRequest) -> Generation:
        generation = Generation(GeneratedText(job.target, request.begins_with))
        if job.document_key is not None and request.max_tokens:
            self._cached[generation] = job.cache_key
            while len(self._cached) > MAX_CACHED_GENERATIONS:
                self._cached.popitem(last=False)
        return generation

    def _start(
        self,
        generation: Generation,
        job: CompletionJob,
        request: GenerationRequest,
        slot: AbstractAsyncContextManager[SchedulerSlot],
    ) -> None:
        before: list[asyncio.Task[None]] = []
        document = job.document_key
        if document is not None:
            self.stop(document)
            others = self._running.setdefault(document, [])
            before = [each.task for each in others if each.task is not None]
            others.append(generation)
        task = generation.task = self._tasks.spawn(self._run(generation, request, before, slot))

        def ended(_: asyncio.Task[None]) -> None:
            # A task that is cancelled before its first step never came to say so itself.
            generation.generated.cut()
            generation.changed()
            self._on_end(generation.generated)
            if document is not None:
                others = self._running[document]
                others.remove(generation)
                if not others:
                    del self._running[document]
            if generation.unfit:
                self._cached.pop(generation, None)

        task.add_done_callback(ended)

    async def _run(
        self,
        generation: Generation,
        request: GenerationRequest,
        before: list[asyncio.Task[None]],
        slot: AbstractAsyncContextManager[SchedulerSlot],
    ) -> None:
        generated = generation.generated
        try:
            if before:
                await asyncio.wait(before)
            async with slot as held:
                generation.slot, generation.queue_ms = held, held.queue_ms
                if generation.claimed:
                    held.claim()
                async with aclosing(self._engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        generated.add(chunk)
                        generation.changed()
                        if generated.over:
                            break
                        # Readers look at each chunk before the next one is taken: what they show and when they have
                        # enough does not depend on how the engine's chunks come.
                        await asyncio.sleep(0)
        except NoFreeSlot:
            generation.refused = True
            generated.cut()
        except Exception as error:  # its readers are told
            generation.error = error
        finally:
            generated.cut()
            generation.changed()
