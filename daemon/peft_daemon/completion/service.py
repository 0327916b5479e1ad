"""The service that answers requests: which adapter, format and limits a request gets, and what is counted.

Routes translate their protocols into calls of ``CompletionService``. ``complete`` turns a request into a
``CompletionJob``, which ``stream.Completer`` answers; ``raw`` gives the model's own text to other tools' protocols.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil

from peft_core.api_types import (
    AdapterSummary,
    AdapterUse,
    CompleteRequest,
    CompleteResponse,
    FinishReason,
    Origin,
    Task,
    Timings,
    UseAdapterRequest,
    WarmResponse,
)
from peft_core.code.document import Document
from peft_core.errors import InvalidInput, NotFound, UnusableFile
from peft_core.privacy.files import secret_file, why_off
from peft_core.settings import Settings
from peft_core.status_types import EngineStatus, ServingLimit
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion import formats, prompt
from peft_daemon.completion.chat import ChatFormat, chat_format_of
from peft_daemon.completion.cursor import Intent, find_intent
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.job import CompletionJob, Limits, RawRequest, build_raw
from peft_daemon.completion.scheduler import DeadlinePassed, Deadlines, Scheduler, Superseded, until_deadline
from peft_daemon.completion.stream import Completer, Completion, StreamStats
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.engines import limits
from peft_daemon.engines.base import Engine, EngineSpeed, GenerationChunk, RemoteAdapters, TokenizingEngine
from peft_daemon.metrics import Metrics
from peft_daemon.models.catalogue import ModelEntry

log = logging.getLogger("peft_daemon.service")


class CompletionService:
    """All generations of one daemon."""

    def __init__(
        self,
        settings: Settings,
        model: ModelEntry,
        engine: Engine,
        registry: AdapterRegistry,
        context: RepositoryContext,
        *,
        known_speed: EngineSpeed = EngineSpeed(),
    ) -> None:
        self._context = context
        self._settings, self._model, self._engine, self._registry = settings, model, engine, registry
        self._scheduler = Scheduler(settings.slots)
        self._metrics = Metrics()
        self._limits = Limits(settings, known_speed)
        self._completer = Completer(engine, self._scheduler, self._limits, self._metrics.generated)
        self._context_tokens = limits.context_tokens(settings, model.context_tokens, known_speed)
        self._left_behind = BackgroundTasks(log, "closing a generation failed")
        """Tasks that close what a request did not wait for."""
        self._left_out: dict[Task, str] = {}
        """Why the base answered a task's last request although an adapter is in use."""
        self.started = time.time()
        self.completed = 0

    @property
    def model_id(self) -> str:
        """Catalogue id of the base model."""
        return self._model.id

    @property
    def context_tokens(self) -> int:
        """Size of the context that is served, prompt and answer together."""
        return self._context_tokens

    @property
    def trained_context_tokens(self) -> int:
        """Size of the context that the base model was trained with."""
        return self._model.context_tokens

    @property
    def slots(self) -> int:
        """Requests that are decoded at the same time."""
        return self._settings.slots

    @property
    def chat_format(self) -> ChatFormat:
        """How chats are written for the base model; raises InvalidInput where that is not known."""
        return chat_format_of(formats.of_model(self._model.prompt_formats, Task.INTENT))

    @property
    def tokenizer(self) -> TokenizingEngine:
        """The base model's tokenizer; raises InvalidInput where the engine does not offer it."""
        if not isinstance(self._engine, TokenizingEngine):
            raise InvalidInput(
                f"the {self._engine.id} engine only counts tokens", fix="Set `engine` to llamacpp to see token ids"
            )
        return self._engine

    @property
    def active(self) -> int:
        """Requests being decoded."""
        return self._scheduler.active

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return self._scheduler.queued

    @property
    def speed(self) -> EngineSpeed:
        """How fast the engine was seen to read and write."""
        return self._limits.speed

    def limits(self) -> list[ServingLimit]:
        """What requests may cost now, and why."""
        return [*self._limits.explained(self._context_tokens), self._completer.rhythm.limit()]

    def engine_status(self) -> EngineStatus:
        """The engine's state, without waiting."""
        return self._engine.status()

    def memory_bytes(self) -> int:
        """Resident memory of this process and the engine's."""
        return int(psutil.Process().memory_info().rss) + self._engine.status().memory_bytes

    def metrics_text(self) -> bytes:
        """Prometheus' text format."""
        return self._metrics.text(
            active=self.active,
            queued=self.queued,
            memory_bytes=self.memory_bytes(),
            engine_restarts=self._engine.status().restarts,
        )

    def left_out(self) -> list[str]:
        """What is wrong with the adapters that are in use and answer nothing."""
        return sorted(set(self._left_out.values()))

    def adapters(self) -> list[AdapterSummary]:
        """All adapters of the registry."""
        return self._registry.list_adapters()

    def adapter_named(self, name: str) -> Manifest | None:
        """The adapter a request names; None for ``base``.

        Raises NotFound, Conflict for another base model, UnusableFile when its files are damaged.
        """
        manifest = self._fitting(self._registry.resolve(Task.FILL, None, name))
        if manifest is not None:
            self._registry.require_intact(manifest, engine=self._engine.id)
        return manifest

    def adapter_in_use(self, task: Task, path: str | None) -> Manifest | None:
        """The adapter in use for a task at a path.

        None when there is none, it was made for another base, or its files are damaged or gone: nobody named it in
        the request, so the base answers.
        """
        try:
            manifest = self._registry.resolve(task, path, None)
            if manifest is None or manifest.base_sha256 != self._model.sha256:
                return None
            if isinstance(self._engine, RemoteAdapters) and not self._engine.serves(manifest):
                return None
            if self._engine.id in manifest.engines:
                self._registry.require_intact(manifest, engine=self._engine.id)
        except (UnusableFile, NotFound) as error:
            if error.line not in self._left_out.values():
                log.warning("the base answers without an adapter: %s", error.line)
            self._left_out[task] = error.line
            return None
        self._left_out.pop(task, None)
        return manifest

    async def use_adapter(self, asked: UseAdapterRequest) -> None:
        """Put an adapter in use; raises as ``adapter_named`` does."""
        self.adapter_named(asked.name)
        repository = Path(asked.repository) if asked.repository else None
        # Another process may hold the registry's lock for as long as an import takes.
        await asyncio.to_thread(self._registry.use, asked.name, asked.task, repository)

    async def complete(self, asked: CompleteRequest) -> AsyncGenerator[str | CompleteResponse, None]:
        """Yield pieces of the final text as they become certain, then the CompleteResponse.

        Superseded requests end with a response that says so. Closing the generator stops decoding, unless a newer
        request goes on with it. When its time is over, which counts from now on, it ends with what is complete.

        Raises NotFound or Conflict for a wrong adapter, Unavailable and EngineFailed as the engine does, and
        Unavailable where nothing is complete in the time because the engine was not there.
        """
        arrived, clock = time.perf_counter(), asyncio.get_running_loop().time()
        if (why := why_off(asked.path, asked.language, prose=asked.prose)) is not None:
            yield self._off(asked, why)
            return
        job = self._job(await self._with_context(asked, adopt=False))
        display_s = None if asked.show_after_ms is None else asked.show_after_ms / 1000
        deadlines = Deadlines(clock, self._limit_s(job.time_budget_ms), display_s)
        end, stats = Completion("", FinishReason.CANCELLED), StreamStats()
        try:
            async with aclosing(self._completer.run(job, stats, deadlines)) as parts:
                async for part in parts:
                    if isinstance(part, Completion):
                        end = part
                    else:
                        yield part
        except Superseded:
            end = Completion("", FinishReason.SUPERSEDED)
        except DeadlinePassed:
            end = Completion("", FinishReason.TIMEOUT)
        finally:
            spent = Timings() if stats.origin is Origin.KEPT else end.timings
            timings = _complete(spent, stats.queue_ms, arrived)
            self._count("complete", end.reason, timings)
            self._metrics.answered(stats.origin.value)
        if end.reason is FinishReason.TIMEOUT and not end.text:
            deadlines.require_engine(self._engine.status())
        if self._limits.looks_ahead and end.reason in _PREFETCHED_AFTER and not end.more:
            after = await self._with_context(_accepted(asked, end), adopt=False)
            self._completer.prefetcher.prefetch(self._job(after))
        yield CompleteResponse(
            id=uuid.uuid4().hex,
            text=end.text,
            finish_reason=end.reason,
            task=job.task,
            model=self._model.id,
            adapter=job.adapter_use,
            replace_after=end.replace_after,
            origin=stats.origin,
            more=end.more,
            timings=timings,
        )

    async def warm(self, asked: CompleteRequest) -> WarmResponse:
        """Read the prompt of a request that is likely to come; any completion goes first.

        A newer one for the same document ends it, and so does the end of its time. Raises as ``complete`` does.
        """
        if why_off(asked.path, asked.language, prose=asked.prose) is not None:
            return WarmResponse(warm=False)
        deadlines = Deadlines(asyncio.get_running_loop().time(), self._limit_s(asked.time_budget_ms))
        try:
            async with asyncio.timeout_at(deadlines.answer_at):
                return await self._completer.prefetcher.warm(self._job(await self._with_context(asked, adopt=True)))
        except TimeoutError:
            deadlines.require_engine(self._engine.status())
            return WarmResponse(warm=False)

    async def close(self) -> None:
        """End everything that runs."""
        await self._completer.close()
        await self._left_behind.end()

    def _limit_s(self, time_budget_ms: int | None) -> float:
        return self._settings.request_limit_s if time_budget_ms is None else time_budget_ms / 1000

    def _off(self, asked: CompleteRequest, why: str) -> CompleteResponse:
        """The answer where completions are off; the text is not looked at."""
        self._count("complete", FinishReason.OFF, Timings())
        task, off = asked.task or Task.FILL, FinishReason.OFF
        return CompleteResponse(
            id=uuid.uuid4().hex, text="", finish_reason=off, task=task, model=self._model.id, adapter=None, why=why
        )

    async def _with_context(self, asked: CompleteRequest, *, adopt: bool) -> CompleteRequest:
        """The request with chunks of the workspace; ``adopt``: they may be other ones than before."""
        return msgspec.structs.replace(asked, context=list(await self._context.chunks(asked, adopt=adopt)))

    def _job(self, asked: CompleteRequest) -> CompletionJob:
        """Decide the task, adapter, format and limits of a request."""
        settings = self._settings
        document = Document.normalized(asked.prefix, asked.suffix, path=asked.path, language=asked.language)
        intent = find_intent(asked, document)
        answered_by = intent.answered_by if intent else Task.FILL
        manifest = self.adapter_named(asked.adapter) if asked.adapter else self.adapter_in_use(answered_by, asked.path)
        lease = self._lease(manifest, asked.scale)
        use = AdapterUse(manifest.name, manifest.digest, lease.scale) if manifest and lease else None
        max_tokens = asked.max_tokens or (settings.max_tokens_intent if intent else settings.max_tokens_fill)
        return CompletionJob(
            document=document,
            format=self._format(intent, manifest),
            context_tokens=min(self._context_tokens, self._limits.prompt_tokens + max_tokens + prompt.MARGIN_TOKENS),
            max_tokens=max_tokens,
            task=Task.INTENT if intent else Task.FILL,
            intent=intent.sentence if intent else "",
            lead=intent.lead if intent else "",
            context=tuple(asked.context),
            sampling=asked.sampling,
            stop=tuple(asked.stop),
            time_budget_ms=asked.time_budget_ms or (None if intent else settings.time_budget_fill_ms),
            single_line=asked.single_line,
            adapter=lease,
            adapter_use=use,
            # A sampled answer is no other request's, and supersedes none.
            document_key=asked.document if asked.document and asked.temperature == 0 else None,
            automatic=asked.automatic,
        )

    async def raw(self, asked: RawRequest, *, route: str) -> AsyncGenerator[GenerationChunk, None]:
        """Yield the model's own text; the last chunk has the reason why it ended, and no text.

        The model sees no values that look like secrets. Raises as ``complete`` does.
        """
        if secret_file(asked.path) is not None:
            self._count(route, FinishReason.OFF, Timings())
            yield GenerationChunk(reason=FinishReason.OFF)
            return
        clock, limit_s = asyncio.get_running_loop().time(), self._settings.request_limit_s
        timings = None
        try:
            async with aclosing(until_deadline(self._raw(asked, route), clock + limit_s, self._left_behind)) as chunks:
                async for chunk in chunks:
                    timings = chunk.timings
                    yield chunk
        except DeadlinePassed:
            if timings is None:
                raise Deadlines(clock, limit_s).unanswered(self._engine.status()) from None
            timings = msgspec.structs.replace(timings, total_ms=1000 * limit_s)
            yield GenerationChunk(reason=FinishReason.TIMEOUT, timings=timings)

    async def _raw(self, asked: RawRequest, route: str) -> AsyncGenerator[GenerationChunk, None]:
        arrived = time.perf_counter()
        reason, timings, queue_ms, has_line = FinishReason.CANCELLED, Timings(), 0.0, False
        try:
            async with self._scheduler.slot() as slot:
                queue_ms = slot.queue_ms
                request = await build_raw(
                    self._engine,
                    asked,
                    hole_format=formats.of_model(self._model.prompt_formats, Task.FILL),
                    context_tokens=self._context_tokens,
                    step_tokens=self._limits.step_tokens,
                    adapter=self._lease(asked.adapter, asked.scale),
                )
                held = request.begins_with
                async with aclosing(self._engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        timings, reason = chunk.timings, chunk.reason or reason
                        text = chunk.text
                        if text and held:
                            # The answer begins with what the prompt held back; the client has that already.
                            known = min(len(held), len(text)) if held.startswith(text[: len(held)]) else 0
                            text, held = text[known:], held[known:] if known else ""
                        if text or chunk.logprobs:
                            yield replace(chunk, text=text)
                        has_line = has_line or "\n" in text
                        if asked.decode_budget_ms and has_line and timings.decode_ms > asked.decode_budget_ms:
                            reason = chunk.reason or FinishReason.TIMEOUT
                            break
        finally:
            timings = _complete(timings, queue_ms, arrived)
            self._count(route, reason, timings)
            self._metrics.generated(timings)
            if timings.decode_tokens:
                self._limits.note(timings)
        yield GenerationChunk(reason=reason, timings=timings)

    def _lease(self, manifest: Manifest | None, scale: float | None) -> AdapterLease | None:
        if manifest is None:
            return None
        scale = manifest.scale if scale is None else scale
        return self._registry.lease(manifest, scale, engine=self._engine.id)

    def _fitting(self, manifest: Manifest | None) -> Manifest | None:
        if manifest is not None:
            manifest.require_base(self._model.id, self._model.sha256)
            manifest.require_engine(self._engine.id)
            if isinstance(self._engine, RemoteAdapters) and not self._engine.serves(manifest):
                raise self._engine.missing(manifest)
        return manifest

    def _format(self, intent: Intent | None, manifest: Manifest | None) -> PromptFormat:
        """The format that the adapter was trained on where that fits what is asked, else the base model's."""
        answered_by = intent.answered_by if intent else Task.FILL
        ids = self._model.prompt_formats
        trained = formats.find(ids, manifest.prompt_format) if manifest else None
        if trained is not None and trained.task is answered_by:
            return trained
        form = formats.of_model(ids, answered_by)
        return formats.get(form.in_file) if intent is not None and not intent.given and form.in_file else form

    def _count(self, route: str, reason: FinishReason, timings: Timings) -> None:
        self.completed += 1
        self._metrics.finished(route, reason.value, timings)


_PREFETCHED_AFTER = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.EMPTY})
"""Ends after which it is known what the user may go on with."""


def _accepted(asked: CompleteRequest, end: Completion) -> CompleteRequest:
    """The request that will come if the completion is accepted; the answer to its sentence is there then."""
    return msgspec.structs.replace(
        asked,
        prefix=asked.prefix + end.text,
        suffix=asked.suffix[end.replace_after :],
        intent="",
        task=Task.FILL if asked.task is Task.FILL else None,
        automatic=False,
    )


def _complete(timings: Timings, queue_ms: float, arrived: float) -> Timings:
    """The engine's timings with what only the daemon knows."""
    total_ms = (time.perf_counter() - arrived) * 1000
    return msgspec.structs.replace(timings, queue_ms=queue_ms, total_ms=total_ms)
