"""The service that answers requests: which model, adapter and limits a request gets, and what is counted.

Each task has a ``ModelInstance``; often it is one for all. Routes translate their protocols into calls of
``CompletionService``. ``complete`` turns a request into a ``CompletionJob``, which the model's ``Completer`` answers;
``raw`` gives the model's own text to other tools' protocols.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
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
    SamplingParams,
    Task,
    Timings,
    UseAdapterRequest,
    WarmResponse,
)
from peft_core.code.document import Document, document_name
from peft_core.decisions import Decider, RequestDecision
from peft_core.errors import Conflict, NotFound, PeftDaemonError
from peft_core.privacy.files import secret_file, why_off
from peft_core.settings import Settings
from peft_core.status_types import ServingLimit
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import Manifest, usable_tasks
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion import prompt
from peft_daemon.completion.cursor import find_intent
from peft_daemon.completion.eagerness import EagernessFromFeedback
from peft_daemon.completion.job import CompletionJob, RawRequest, build_raw
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.prefetch import PREFETCHED_AFTER, if_accepted
from peft_daemon.completion.scheduler import DeadlinePassed, Deadlines, Superseded, until_deadline
from peft_daemon.completion.stream import Completion, StreamStats
from peft_daemon.completion.verdict import decided, decider_of
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.daemon_log import REQUEST_ID
from peft_daemon.engines.base import EngineSpeed, GenerationChunk
from peft_daemon.metrics import DecisionLog, Metrics

log = logging.getLogger("peft_daemon.service")


@dataclass
class _ChosenJob:
    """A request, and what was decided for it."""

    asked: CompleteRequest
    model: ModelInstance
    job: CompletionJob


class CompletionService:
    """All generations of one daemon. ``models`` has the model that answers each task."""

    def __init__(
        self,
        settings: Settings,
        models: Mapping[Task, ModelInstance],
        registry: AdapterRegistry,
        context: RepositoryContext,
        metrics: Metrics,
    ) -> None:
        self.models = models
        self.distinct_models = tuple(dict.fromkeys(models.values()))
        """Each model once, that of filling in first."""
        self._settings, self._registry, self._context, self._metrics = settings, registry, context, metrics
        self._left_behind = BackgroundTasks(log, "closing a generation failed")
        """Tasks that close what a request did not wait for."""
        self.decisions = DecisionLog()
        self.eagerness = EagernessFromFeedback()
        self.started, self.began = time.time(), time.monotonic()
        self.completed = 0

    def choose(self, task: Task, named: str | None) -> tuple[ModelInstance, Manifest | None]:
        """Return the model and the adapter that a client's ``model`` names: a model's id, or an adapter's name.

        Without a name, and for ``base``, it is the task's model alone. Raises as ``ModelInstance.adapter_named`` does.
        """
        ours = self.models[task]
        if not named:
            return ours, None
        if (other := next((each for each in self.distinct_models if each.id == named), None)) is not None:
            return other, None
        if (manifest := self._registry.resolve(task, None, named)) is not None:
            ours = self._model_of(manifest, ours)
        return ours, ours.adapter_named(named)

    def _model_of(self, manifest: Manifest, default: ModelInstance) -> ModelInstance:
        """The model that an adapter was made for, else ``default``."""
        candidates = (default, *self.distinct_models)
        return next((each for each in candidates if each.entry.sha256 == manifest.base_sha256), default)

    @property
    def active(self) -> int:
        """Requests being decoded."""
        return sum(each.scheduler.active for each in self.distinct_models)

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return sum(each.scheduler.queued for each in self.distinct_models)

    @property
    def speed(self) -> EngineSpeed:
        """How fast the engine that fills in was seen to read and write."""
        return self.models[Task.FILL].limits.speed

    def limits(self) -> list[ServingLimit]:
        """What requests to that engine may cost now, and why."""
        model = self.models[Task.FILL]
        return [*model.limits.explained(model.context_tokens), model.completer.rhythm.limit(), self.eagerness.limit()]

    def memory_bytes(self) -> int:
        """Resident memory of this process and the engines'."""
        engines = sum(each.engine.status().memory_bytes for each in self.distinct_models)
        return int(psutil.Process().memory_info().rss) + engines

    def metrics_text(self) -> bytes:
        """Prometheus' text format."""
        return self._metrics.text(
            active=self.active,
            queued=self.queued,
            memory_bytes=self.memory_bytes(),
            engine_restarts=sum(each.engine.status().restarts for each in self.distinct_models),
        )

    def left_out(self) -> list[str]:
        """What is wrong with the adapters that are in use and answer nothing."""
        return sorted({line for each in self.distinct_models for line in each.left_out.values()})

    def adapters(self) -> list[AdapterSummary]:
        """All adapters of the registry."""
        return self._registry.list_adapters()

    async def use_adapter(self, asked: UseAdapterRequest) -> None:
        """Put an adapter in use; raises as ``ModelInstance.adapter_named`` does."""
        manifest = self._registry.resolve(Task.FILL, None, asked.name)
        tasks = (asked.task,) if asked.task else tuple(Task)
        if manifest is not None:
            entries = {task: model.entry for task, model in self.models.items()}
            tasks = usable_tasks(manifest, asked.task, entries)
            for model in {self.models[task] for task in tasks}:
                model.adapter_named(asked.name)
        repository = Path(asked.repository) if asked.repository else None
        # Another process may hold the registry's lock for as long as an import takes.
        await asyncio.to_thread(self._registry.use, asked.name, tasks, repository)

    async def complete(self, asked: CompleteRequest) -> AsyncGenerator[str | CompleteResponse, None]:
        """Yield pieces of the final text as they become certain, then the CompleteResponse.

        Superseded requests end with a response that says so. Closing the generator stops decoding, unless a newer
        request goes on with it. When its time is over, which counts from now on, it ends with what is complete.

        Raises NotFound or Conflict for a wrong adapter, Unavailable and EngineFailed as the engine does, and
        Unavailable where nothing is complete in the time because the engine was not there.
        """
        if (why := why_off(asked.path, asked.language, prose=asked.prose)) is not None:
            yield self._off(asked, why)
            return
        stats, is_answered = StreamStats(), False
        try:
            async with aclosing(self._complete(asked, stats)) as parts:
                async for part in parts:
                    is_answered = isinstance(part, CompleteResponse)
                    yield part
        except PeftDaemonError as error:
            self.decisions.unanswered(asked, decider_of(error), error.line)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not is_answered:
                self.decisions.unanswered(asked, Decider.CANCELLED, stats.stage)
            raise

    async def _complete(
        self, asked: CompleteRequest, stats: StreamStats
    ) -> AsyncGenerator[str | CompleteResponse, None]:
        arrived, clock = time.perf_counter(), asyncio.get_running_loop().time()
        chosen = self._choose(await self._with_context(asked, adopt=False))
        display_s = None if asked.show_after_ms is None else asked.show_after_ms / 1000
        deadlines = Deadlines(clock, self._limit_s(chosen.job.time_budget_ms), display_s)
        end = Completion("", FinishReason.CANCELLED)
        try:
            async with aclosing(self._parts(chosen, stats, deadlines)) as parts:
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
            timings = _whole_timings(spent, stats.queue_ms, arrived)
            self._count("complete", end.reason, timings)
            self._metrics.answered(stats.origin.value)
        model, job = chosen.model, chosen.job
        if end.reason is FinishReason.TIMEOUT and not end.text:
            deadlines.require_engine(model.engine.status())
        if self._settings.look_ahead and end.reason in PREFETCHED_AFTER and not end.more:
            # A named adapter may be for the model of this task, and what follows is the other's.
            with suppress(Conflict):
                accepted = if_accepted(asked, end.text, end.replace_after)
                following = self._choose(await self._with_context(accepted, adopt=False))
                if following.model.limits.looks_ahead and following.job.unwanted is None:
                    following.model.completer.prefetcher.prefetch(following.job)
        response = CompleteResponse(
            id=_request_id(),
            text=end.text,
            finish_reason=end.reason,
            task=job.task,
            model=end.model or model.id,
            adapter=job.adapter_use,
            replace_after=end.replace_after,
            origin=stats.origin,
            more=end.more,
            confidence=_rounded(end.confidence) if end.text else None,
            timings=timings,
        )
        verdict = decided(end, stats, asked.eagerness, self.eagerness)
        self.decisions.answered(asked, response, *verdict, pause_ms=stats.pause_ms, doubt=_rounded(end.doubt))
        yield response

    async def _parts(
        self, chosen: _ChosenJob, stats: StreamStats, deadlines: Deadlines
    ) -> AsyncGenerator[str | Completion, None]:
        """Yield what the model's completer does.

        If the adapter was removed after it was chosen, and nobody had named it, what is in use now answers.
        """
        for is_last in (False, True):
            is_shown = False
            try:
                async with aclosing(chosen.model.completer.run(chosen.job, stats, deadlines)) as parts:
                    async for part in parts:
                        is_shown = True
                        yield part
                return
            except NotFound:
                if is_last or is_shown or chosen.asked.adapter is not None:
                    raise
                newer = self._choose(chosen.asked)
                chosen.model, chosen.job = newer.model, newer.job

    async def warm(self, asked: CompleteRequest) -> WarmResponse:
        """Read the prompt of a request that is likely to come; any completion goes first.

        A newer one for the same document ends it, and so does the end of its time. Raises as ``complete`` does.
        """
        if why_off(asked.path, asked.language, prose=asked.prose) is not None:
            return WarmResponse(warm=False)
        deadlines = Deadlines(asyncio.get_running_loop().time(), self._limit_s(asked.time_budget_ms))
        model = self.models[Task.FILL]
        try:
            async with asyncio.timeout_at(deadlines.answer_at):
                chosen = self._choose(await self._with_context(asked, adopt=True))
                model = chosen.model
                return await model.completer.prefetcher.warm(chosen.job)
        except TimeoutError:
            deadlines.require_engine(model.engine.status())
            return WarmResponse(warm=False)

    async def close(self) -> None:
        """End everything that runs."""
        for model in self.distinct_models:
            await model.completer.close()
        await self._left_behind.end()

    def _limit_s(self, time_budget_ms: int | None) -> float:
        return self._settings.request_limit_s if time_budget_ms is None else time_budget_ms / 1000

    def _off(self, asked: CompleteRequest, why: str) -> CompleteResponse:
        """The answer where completions are off; the text is not looked at."""
        self._count("complete", FinishReason.OFF, Timings())
        task, off = asked.task or Task.FILL, FinishReason.OFF
        model = self.models[task].id
        response = CompleteResponse(
            id=_request_id(), text="", finish_reason=off, task=task, model=model, adapter=None, why=why
        )
        is_secret = secret_file(asked.path, asked.language) is not None
        self.decisions.answered(asked, response, Decider.SECRET_FILE if is_secret else Decider.LANGUAGE, why)
        return response

    async def _with_context(self, asked: CompleteRequest, *, adopt: bool) -> CompleteRequest:
        """The request with chunks of the workspace; ``adopt``: they may be other ones than before."""
        place = asked.path or asked.workspace or ""
        if not asked.workspace or not self._registry.context_tokens(place, self._settings):
            return asked
        tokens = self.models[Task.FILL].limits.prompt_tokens
        shown = prompt.shown_characters(len(asked.prefix), len(asked.suffix), tokens)
        return msgspec.structs.replace(asked, context=list(await self._context.chunks(asked, shown, adopt=adopt)))

    def _choose(self, asked: CompleteRequest) -> _ChosenJob:
        """Decide the task, model, adapter, format and limits of a request."""
        settings = self._settings
        document = Document.normalized(asked.prefix, asked.suffix, path=asked.path, language=asked.language)
        intent = find_intent(asked, document)
        answered_by = intent.answered_by if intent else Task.FILL
        model = self.models[answered_by]
        named = asked.adapter
        manifest = model.adapter_named(named) if named else model.adapter_in_use(answered_by, asked.path)
        lease = model.lease(manifest, asked.scale)
        use = AdapterUse(manifest.name, manifest.digest, lease.scale) if manifest and lease else None
        max_tokens = asked.max_tokens or (settings.max_tokens_intent if intent else settings.max_tokens_fill)
        job = CompletionJob(
            document=document,
            format=model.format_with(intent, manifest),
            context_tokens=min(model.context_tokens, model.limits.prompt_tokens + max_tokens + prompt.MARGIN_TOKENS),
            max_tokens=max_tokens,
            task=Task.INTENT if intent else Task.FILL,
            intent=intent.sentence if intent else "",
            lead=intent.lead if intent else "",
            context=tuple(asked.context),
            sampling=SamplingParams(asked.temperature, asked.top_p, asked.seed),
            stop=tuple(asked.stop),
            time_budget_ms=asked.time_budget_ms or (None if intent else settings.time_budget_fill_ms),
            single_line=asked.single_line,
            adapter=lease,
            adapter_use=use,
            # A sampled answer is no other request's, and supersedes none.
            document_key=asked.document if asked.document and asked.temperature == 0 else None,
            automatic=asked.automatic,
            least_confidence=self.eagerness.least(asked.eagerness),
            silent_in=tuple(asked.silent_in),
        )
        return _ChosenJob(asked, model, job)

    async def raw(
        self, asked: RawRequest, *, model: ModelInstance, route: str
    ) -> AsyncGenerator[GenerationChunk, None]:
        """Yield the model's own text; the last chunk has the reason why it ended, and no text.

        The model sees no values that look like secrets. Raises as ``complete`` does.
        """
        if secret_file(asked.path) is not None:
            self._count(route, FinishReason.OFF, Timings())
            yield GenerationChunk(reason=FinishReason.OFF)
            return
        clock, limit_s = asyncio.get_running_loop().time(), self._settings.request_limit_s
        timings, characters, decider, detail = None, 0, Decider.CANCELLED, ""
        generated = until_deadline(self._raw(asked, model, route), clock + limit_s, self._left_behind)
        try:
            async with aclosing(generated) as chunks:
                async for chunk in chunks:
                    timings, characters = chunk.timings, characters + len(chunk.text)
                    if chunk.reason is not None:
                        decider = Decider.MODEL if characters else Decider.NOTHING_WRITTEN
                    yield chunk
        except PeftDaemonError as error:
            decider, detail = decider_of(error), error.line
            raise
        except DeadlinePassed:
            decider = Decider.DEADLINE
            if timings is None:
                raise Deadlines(clock, limit_s).unanswered(model.engine.status()) from None
            timings = msgspec.structs.replace(timings, total_ms=1000 * limit_s)
            yield GenerationChunk(reason=FinishReason.TIMEOUT, timings=timings)
        finally:
            if asked.max_tokens != 0:
                self.decisions.add(
                    RequestDecision(
                        id=_request_id(),
                        at=time.time(),
                        decider=decider,
                        detail=detail,
                        route=route,
                        document=document_name(asked.path, None),
                        model=model.id,
                        adapter=asked.adapter.name if asked.adapter else "",
                        characters=characters,
                        timings=timings or Timings(),
                    )
                )

    async def _raw(self, asked: RawRequest, model: ModelInstance, route: str) -> AsyncGenerator[GenerationChunk, None]:
        arrived = time.perf_counter()
        reason, timings, queue_ms, has_line, wrote = FinishReason.CANCELLED, Timings(), 0.0, False, ""
        try:
            async with model.scheduler.slot() as slot:
                queue_ms = slot.queue_ms
                request = await build_raw(
                    model.engine,
                    asked,
                    hole_format=model.format_for(Task.FILL),
                    context_tokens=model.context_tokens,
                    step_tokens=model.limits.step_tokens,
                    adapter=model.lease(asked.adapter, asked.scale),
                )
                held = request.begins_with
                async with aclosing(model.engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        timings, reason, wrote = chunk.timings, chunk.reason or reason, chunk.model
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
            timings = _whole_timings(timings, queue_ms, arrived)
            self._count(route, reason, timings)
            self._metrics.generated(timings)
            if timings.decode_tokens:
                model.limits.note(timings)
        yield GenerationChunk(reason=reason, timings=timings, model=wrote)

    def _count(self, route: str, reason: FinishReason, timings: Timings) -> None:
        self.completed += 1
        self._metrics.finished(route, reason.value, timings)


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, 3)


def _request_id() -> str:
    """The id of the request that this task works for; a new one for a request that came by no route."""
    return REQUEST_ID.get() or uuid.uuid4().hex


def _whole_timings(timings: Timings, queue_ms: float, arrived: float) -> Timings:
    """The engine's timings with what only the daemon knows."""
    total_ms = (time.perf_counter() - arrived) * 1000
    return msgspec.structs.replace(timings, queue_ms=queue_ms, total_ms=total_ms)
