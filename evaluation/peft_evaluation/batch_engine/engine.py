"""An engine in this process that answers many requests in one batch, and that has beam search.

It is made for evaluations, where throughput counts more than latency. Serving uses the torch engine's child process,
which answers one request at a time. The interface is ``peft_daemon.engines.base.Engine``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from peft_core.api_types import FinishReason, Timings
from peft_core.code.document import normalize_newlines
from peft_core.errors import EngineFailed, InvalidInput, PeftDaemonError
from peft_core.status_types import TORCH, EngineState, EngineStatus
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import build_for_engine, prompt_budget, unheld
from peft_daemon.completion.stream import postprocess
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Prompt
from peft_daemon.engines.torch.adapters import AdapterCache
from peft_daemon.engines.torch.base_model import LoadedBase, card_memory_bytes
from peft_daemon.engines.torch.generation import AnswerText, Sampler, prompt_too_long
from peft_daemon.engines.torch.tokenizer import ByteVocabulary, LiteralTokenizer
from peft_daemon.models.catalogue import PromptFormats
from peft_evaluation.batch_engine.worker import BatchLimits, BatchWorker, BeamSearch, Search, SearchJob, SingleSequence
from peft_evaluation.model import Beams, ModelInput, ModelOutput, answer_with_fitting_examples, job_for

MAX_ADAPTERS = 4
"""Adapters that are kept in memory."""
STOP_TAIL_TOKENS = 16
"""Number of last tokens of a beam that are searched for stop strings; no stop string has more tokens."""


def batch_limits(device: str, rows: int) -> BatchLimits:
    """Return the limits for ``rows`` sequences; the key-value states of the default model then take 2 GB on a CPU."""
    return BatchLimits(rows=rows, positions=80_000, reading=512 if device == "cpu" else 8192)


@dataclass(eq=False)
class _RequestTimer:
    """Measures the phases of one request."""

    prompt: int
    arrived: float = field(default_factory=time.perf_counter)
    began: float = 0.0
    read: float = 0.0
    evaluated: int = 0
    written: int = 0

    def begin(self) -> None:
        self.began = time.perf_counter()

    def reading_done(self, evaluated: int) -> None:
        self.read, self.evaluated = time.perf_counter(), evaluated

    def timings(self) -> Timings:
        now = time.perf_counter()
        return Timings(
            queue_ms=(self.began - self.arrived) * 1000,
            prompt_tokens=self.prompt,
            prompt_evaluated=self.evaluated,
            prompt_reused=max(self.prompt - self.evaluated, 0),
            prompt_ms=(self.read - self.began) * 1000,
            first_token_ms=(self.read - self.began) * 1000,
            decode_tokens=self.written,
            decode_ms=(now - self.read) * 1000,
            engine_ms=(now - self.began) * 1000,
        )


@dataclass(frozen=True)
class Beam:
    """An answer found by beam search."""

    text: str
    score: float
    """Log-probability divided by the number of tokens, in nats."""
    truncated: bool
    """Whether it reached the maximum length."""


class BatchedEngine:
    """An engine that answers requests in batches; implements ``Engine``."""

    id = TORCH

    def __init__(
        self, load_base: Callable[[], LoadedBase], *, model_id: str, context_tokens: int, rows: int, threads: int = 0
    ) -> None:
        """``load_base`` is called by ``start``, in a thread. ``rows`` is the most sequences generated at once."""
        self._load, self._model_id, self._context_tokens = load_base, model_id, context_tokens
        self._row_limit, self._threads = rows, threads
        self._loading: asyncio.Task[LoadedBase] | None = None
        self._worker: BatchWorker | None = None
        self._in_flight = 0

    async def start(self) -> None:
        """See ``Engine``."""
        if self._threads:
            torch.set_num_threads(self._threads)
        self._loading = asyncio.create_task(asyncio.to_thread(self._load))

    async def ready(self) -> None:
        """See ``Engine``; raises EngineFailed if it was not started, and what loading raises."""
        if self._loading is None:
            raise EngineFailed("the engine was not started")
        base = await asyncio.shield(self._loading)
        if self._worker is not None:
            return
        if base.family.encoder_decoder:
            raise InvalidInput(
                f"{base.family.id} models do not answer in batches", why="they have an encoder", fix="Leave --beams out"
            )
        self._vocabulary, self._tokenizer = ByteVocabulary(base.tokenizer), LiteralTokenizer(base.tokenizer)
        self._device = base.model.device
        self._adapter_cache = AdapterCache(base, MAX_ADAPTERS)
        self._worker = BatchWorker(base, self._adapter_cache, batch_limits(base.model.device.type, self._row_limit))

    async def stop(self) -> None:
        """See ``Engine``."""
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop)
            self._worker = None
            self._adapter_cache.activate(None)

    def status(self) -> EngineStatus:
        """See ``Engine``; the memory is that of this process, with the card's."""
        return EngineStatus(
            kind="torch, batched",
            state=EngineState.READY if self._worker else EngineState.STARTING,
            model=self._model_id,
            memory_bytes=psutil.Process().memory_info().rss + (card_memory_bytes(self._device) if self._worker else 0),
            context_tokens=self._context_tokens,
            adapters=self._adapter_cache.digests if self._worker else [],
        )

    async def idle(self) -> None:
        """See ``Engine``."""
        while self._in_flight:  # noqa: ASYNC110  (for tests and measurements)
            await asyncio.sleep(0.01)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """See ``Engine``."""
        await self.ready()
        return [len(self._tokenizer.encode_text(text)) for text in texts]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See ``Engine``; ignores the time budget and returns no log-probabilities.

        Raises InvalidInput for a prompt that does not fit.
        """
        await self.ready()
        tokens, room = self._room(request.prompt, request.max_tokens)
        clock = _RequestTimer(len(tokens))
        answer, sampler = AnswerText(request.stop), Sampler(request, self._vocabulary)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[GenerationChunk | Exception] = asyncio.Queue()

        def send(chunk: GenerationChunk | Exception) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, chunk)

        def give(text: str) -> None:
            if text:
                send(GenerationChunk(text, timings=clock.timings()))

        def take(logits: Tensor) -> int | None:
            token = sampler.pick(logits)
            clock.written += 1
            over = token in self._vocabulary.ends
            if not over:
                give(answer.add(self._vocabulary.text(token))[0])
            if not (over or answer.stopped or clock.written == room):
                return token
            give(answer.rest()[0])
            reason = FinishReason.STOP if over or answer.stopped else FinishReason.LENGTH
            send(GenerationChunk(reason=reason, timings=clock.timings()))
            return None

        def done(error: Exception | None) -> None:
            if error is not None:
                send(_failure(error))

        async with self._under_way(tokens, SingleSequence(take, max_tokens=room), request.adapter, clock, done):
            while True:
                chunk = await arrived.get()
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                if chunk.reason is not None:
                    return

    async def search(
        self, prompt: Prompt, *, width: int, max_tokens: int, adapter: AdapterLease | None, stop: Sequence[str]
    ) -> tuple[list[Beam], Timings]:
        """Return the ``width`` best answers of beam search, best first; each ends before the first stop string.

        Raises InvalidInput for a prompt that does not fit, EngineFailed if computing fails.
        """
        await self.ready()
        tokens, room = self._room(prompt, max_tokens)
        clock = _RequestTimer(len(tokens))
        search = BeamSearch(width, max_tokens=room, ends=self._vocabulary.ends, over=lambda ids: self._ends(ids, stop))
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def done(error: Exception | None) -> None:
            loop.call_soon_threadsafe(_settle, finished, error)

        async with self._under_way(tokens, search, adapter, clock, done):
            await finished
        clock.written = sum(len(ids) for _, ids in search.found)
        return [self._beam(score, ids, room, stop) for score, ids in search.found], clock.timings()

    @asynccontextmanager
    async def _under_way(
        self,
        tokens: list[int],
        search: Search,
        adapter: AdapterLease | None,
        clock: _RequestTimer,
        done: Callable[[Exception | None], None],
    ) -> AsyncGenerator[None, None]:
        """Give a search to the worker, and cancel it at the end of the block."""
        assert self._worker is not None  # noqa: S101  (ready)
        work = SearchJob(
            tokens=tokens, search=search, adapter=adapter, begun=clock.begin, read=clock.reading_done, done=done
        )
        self._in_flight += 1
        self._worker.put(work)
        try:
            yield
        finally:
            self._in_flight -= 1
            work.cancelled.set()

    def _room(self, prompt: Prompt, max_tokens: int) -> tuple[list[int], int]:
        """Return the prompt's tokens, and how many tokens may be generated after them."""
        tokens = self._tokenizer.encode_prompt(prompt)
        room = self._context_tokens - len(tokens)
        if room < 1 or not tokens:
            raise prompt_too_long(len(tokens), self._context_tokens)
        return tokens, min(max_tokens, room)

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(self._vocabulary.text(token) for token in ids).decode(errors="replace")

    def _ends(self, ids: Sequence[int], stop: Sequence[str]) -> bool:
        tail = self._text(ids[-STOP_TAIL_TOKENS:])
        return any(each in tail for each in stop)

    def _beam(self, score: float, ids: Sequence[int], room: int, stop: Sequence[str]) -> Beam:
        text = self._text([token for token in ids if token not in self._vocabulary.ends])
        cut = min((at for each in stop if (at := text.find(each)) >= 0), default=len(text))
        over = cut < len(text) or ids[-1] in self._vocabulary.ends
        return Beam(text[:cut], score, truncated=len(ids) == room and not over)


def _failure(error: Exception) -> Exception:
    if isinstance(error, PeftDaemonError):
        return error
    return EngineFailed("the torch engine failed", why=f"{type(error).__name__}: {error}"[:500])


def _settle(finished: asyncio.Future[None], error: Exception | None) -> None:
    if finished.done():
        return
    if error is None:
        finished.set_result(None)
    else:
        finished.set_exception(_failure(error))


@dataclass(frozen=True, kw_only=True)
class BeamSearchModel:
    """A ``model.Model`` that answers by beam search.

    A beam ends where a completion does, at a control token or a stop string of the format. So no two beams are the
    same answer with different text after it.
    """

    engine: BatchedEngine
    formats: PromptFormats
    context_tokens: int
    prompt_tokens: int
    max_tokens: int
    decoding: Beams
    at_once: int

    async def answer(self, question: ModelInput) -> ModelOutput:
        """See ``Model``."""
        return await answer_with_fitting_examples(question, self._answer)

    def memory_bytes(self) -> int:
        """Return the memory of this process."""
        return self.engine.status().memory_bytes

    async def _answer(self, question: ModelInput, shown: int) -> ModelOutput:
        job = job_for(
            question,
            shown,
            self.formats,
            context_tokens=self.context_tokens,
            prompt_tokens=self.prompt_tokens,
            max_tokens=self.max_tokens,
        )
        budget = prompt_budget(job.context_tokens, job.max_tokens)
        segments, held = await build_for_engine(
            self.engine,
            job.document,
            job.format,
            min(budget, job.prompt_tokens or budget),
            intent=job.intent,
            context=job.context,
            shots=job.shots,
        )
        began = time.perf_counter()
        beams, timings = await self.engine.search(
            segments,
            width=self.decoding.width,
            max_tokens=self.max_tokens,
            adapter=question.adapter,
            stop=job.format.stop,
        )
        return ModelOutput(
            texts=tuple(_beam_text(job, beam, held) for beam in beams),
            shown=shown,
            prompt_tokens=timings.prompt_tokens,
            reused_tokens=timings.prompt_reused,
            answer_tokens=timings.decode_tokens,
            latency_ms=(time.perf_counter() - began) * 1000,
            beside=self.at_once,
        )


def _beam_text(job: CompletionJob, beam: Beam, held: str) -> str:
    answer = unheld(normalize_newlines(beam.text), held)
    return postprocess(job, answer, final=True, truncated=beam.truncated).text
