"""Work in the background for requests that are likely to come: prompts read ahead, and the next suggestion.

While the cursor rests, the prompt around it is read (``warm``). While a suggestion is read, the one that follows it is
generated (``prefetch``), so that it is there when the suggestion is accepted. Any request goes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from peft_core.api_types import CompleteRequest, FinishReason, Task, Timings, WarmResponse
from peft_core.code.document import Document
from peft_core.code.lexer import without_comment
from peft_core.errors import PeftDaemonError
from peft_core.tasks import BackgroundTasks
from peft_daemon.completion.cache import Generation, GenerationCache
from peft_daemon.completion.cursor import opens_block
from peft_daemon.completion.job import CompletionJob, RequestBuilder, read_only
from peft_daemon.completion.postprocess.cleanup import level

log = logging.getLogger(__name__)

PREFETCH_DELAY_S = 0.12
"""How long a suggestion is on the screen before the one after it is generated: a user who types on does not wait."""
BACKGROUND_RETRY_S = 0.05
"""How long reading ahead waits before it looks again whether a request waits for an answer."""
PREFETCHED_AFTER = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.EMPTY})
"""Ends of a completion after which it is known what the user may go on with."""
_BLOCK_ENDS = ("return", "raise", "break", "continue", "pass")

HasText = Callable[[Generation, str, CompletionJob], Awaitable[bool]]
"""Whether there is something to show of a generation in the end, behind the text typed since it began."""


def if_accepted(asked: CompleteRequest, text: str, replace_after: int) -> CompleteRequest:
    """Return the request that will come if the completion is accepted; the answer to its sentence is there then."""
    return msgspec.structs.replace(
        asked,
        prefix=asked.prefix + text,
        suffix=asked.suffix[replace_after:],
        intent="",
        task=Task.FILL if asked.task is Task.FILL else None,
        automatic=False,
    )


class Prefetcher:
    """The background work of one engine."""

    def __init__(self, cache: GenerationCache, requests: RequestBuilder, has_text: HasText) -> None:
        self._cache, self._requests, self._has_text = cache, requests, has_text
        self._ahead: dict[str, asyncio.Task[None]] = {}
        """Of each document, the task that generates the suggestion after the next."""
        self._reading = BackgroundTasks(log, "reading a prompt ahead failed")
        self._newest_warm = object()

    async def warm(self, job: CompletionJob) -> WarmResponse:
        """Read the prompts of a request that is likely to come, as soon as no request waits for an answer.

        A completion for the same document ends it, and so does a newer one of this. Raises what the engine raises.
        """
        mine = self._newest_warm = object()
        # The cursor is here now: what is generated elsewhere must not take this one's place.
        self.close(besides=job.document_key)
        if (ahead := self._ahead.get(job.document_key or "")) is not None:
            # What it writes is worth more than what would be read instead, and is soon done.
            await asyncio.wait((ahead,))
        if job.document_key is None or job.hopeless:
            return WarmResponse(warm=False)
        spent = Timings()
        for request in await self._requests.reading(job):
            while True:
                running = self._cache.running(job.document_key)
                if self._newest_warm is not mine or (running is not None and running.claimed):
                    return WarmResponse(warm=False, timings=spent)
                generation = self._cache.begin_background(job, request)
                await generation.until_over()
                if not generation.refused:
                    break
                await asyncio.sleep(BACKGROUND_RETRY_S)
            spent = _together(spent, generation.generated.timings)
            if generation.generated.cut_off:
                return WarmResponse(warm=False, timings=spent)
        return WarmResponse(warm=True, timings=spent)

    def prefetch(self, job: CompletionJob) -> None:
        """Generate the answer to a job that comes once a suggestion is accepted, in the pause in which it is read."""
        if job.document_key is not None:
            self.forget(job.document_key)
            task = self._ahead[job.document_key] = asyncio.create_task(self._prefetch(job))
            task.add_done_callback(partial(self._ended, job.document_key))

    def forget(self, document: str | None) -> None:
        """Stop generating ahead for a document."""
        if document is not None and (task := self._ahead.pop(document, None)) is not None:
            task.cancel()

    def close(self, *, besides: str | None = None) -> None:
        """End all of it, except what is generated for one document."""
        for document in [each for each in self._ahead if each != besides]:
            self.forget(document)
        self._reading.cancel()

    async def _prefetch(self, job: CompletionJob) -> None:
        await asyncio.sleep(PREFETCH_DELAY_S)
        if job.hopeless:
            return
        with contextlib.suppress(PeftDaemonError):
            await self._answer(job)
            # An answer from a short prompt deserves the full one, while no request waits for anything.
            self._reading.spawn(self._read_on(job))

    async def _answer(self, job: CompletionJob) -> None:
        """Have an answer ready for the job, or for the next line if the cursor's line is finished."""
        typed = typed_for_next_line(job.target) or ""
        # A finished line wants no more; what will be asked for is the next one.
        wanted = job.after(typed) if typed else job
        for match in self._cache.matches(wanted):
            if await self._has_text(*match, wanted):
                return
        request, _ = await self._requests.quickest(job)
        generation = self._cache.begin_background(job, request)
        with generation.held():
            if await self._has_text(generation, typed, wanted):
                return
            # It still tells that nothing follows where Enter was not pressed.
            await self._has_text(generation, "", job)
        next_line = job.after(typed)
        request, _ = await self._requests.quickest(next_line)
        await self._has_text(self._cache.begin_background(next_line, request), "", wanted)

    async def _read_on(self, job: CompletionJob) -> None:
        with contextlib.suppress(PeftDaemonError):
            request = read_only(await self._requests.full(job))
            if self._cache.running(job.document_key) is None:
                await self._cache.begin_background(job, request).until_over()

    def _ended(self, document: str, task: asyncio.Task[None]) -> None:
        if self._ahead.get(document) is task:
            del self._ahead[document]


def typed_for_next_line(document: Document) -> str | None:
    """The line end and indentation that an editor writes when Enter is pressed behind a finished line.

    None where the cursor's line is not at its end, inside brackets and strings, where editors differ, and below a
    statement that ends its block, where some indent less.
    """
    line = document.line_before
    if not line.strip() or document.line_after.strip() or not document.lexer_state.code or document.lexer_state.stack:
        return None
    words = without_comment(line, document.language).split()
    if words and words[0] in _BLOCK_ENDS:
        return None
    deeper = level(document) if opens_block(line, document.language) else ""
    return "\n" + document.indentation + deeper


def _together(one: Timings, other: Timings) -> Timings:
    """Two readings as one: the second's prompt, the work of both."""
    return msgspec.structs.replace(
        other,
        prompt_evaluated=one.prompt_evaluated + other.prompt_evaluated,
        prompt_ms=one.prompt_ms + other.prompt_ms,
        engine_ms=one.engine_ms + other.engine_ms,
    )
