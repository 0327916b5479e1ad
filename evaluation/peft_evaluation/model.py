"""Ask a model for an answer: decoding, the prompt, an engine and the post-processing that completion uses.

``open_model`` opens a serving engine, or the batch engine of ``batch_engine``, which also searches with beams. A node
of a cluster opens its model in the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from peft_core.api_types import TORCH, ContextChunk, SamplingParams, Task
from peft_core.code.document import Document, lines_of
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import formats
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import Shot
from peft_daemon.completion.stream import Completion, complete_once
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine, set_wait_policy
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning.data.examples import Example, FillExample, IntentExample
from peft_tuning.installation import Installation

SEED_STEP = 1_000
"""Between the first samples of two seeds of a strategy."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One item for one strategy."""

    example: Example
    shown: tuple[Example, ...]
    """Solved examples before it, as many of them as fit, the last left out first."""
    adapter: AdapterLease | None
    seed: int
    context: tuple[ContextChunk, ...] | None = None
    """Pieces of other files in place of the example's own; None: those."""


class ModelOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question."""

    texts: tuple[str, ...]
    shown: int
    """How many examples fitted."""
    prompt_tokens: int
    reused_tokens: int
    answer_tokens: int
    """Of all texts."""
    latency_ms: float
    """From the question to the last token of the last text; in it is the time that others took beside it."""
    beside: int = 1
    """How many questions were under way at once."""
    node: str = ""
    """Of a cluster, that answered; empty: the machine that asked."""


class Model(Protocol):
    """Answers one question at a time; several calls may be under way at once, up to ``at_once``."""

    @property
    def at_once(self) -> int:
        """How many questions are answered together."""

    async def answer(self, question: ModelInput) -> ModelOutput:
        """Raises what the engine raises, and InvalidInput for a question that does not fit even alone."""

    def memory_bytes(self) -> int:
        """Held now by whatever holds the model."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """Answers with a serving engine."""

    engine: Engine
    formats: PromptFormats
    context_tokens: int
    max_tokens: int
    decoding: Decoding
    at_once: int
    draws_at_once: int = 1
    """Samples of one question that are drawn together."""

    def __post_init__(self) -> None:
        if isinstance(self.decoding, Beams):
            raise InvalidInput("serving engines have no beam search", fix="Use the torch answerer")

    async def answer(self, question: ModelInput) -> ModelOutput:
        """See ``Model``."""
        return await fitting(question, self._answer)

    def memory_bytes(self) -> int:
        """Of the engine's process."""
        return self.engine.status().memory_bytes

    async def _answer(self, question: ModelInput, shown: int) -> ModelOutput:
        job = job_for(question, shown, self.formats, context_tokens=self.context_tokens, max_tokens=self.max_tokens)
        places, began = asyncio.Semaphore(self.draws_at_once), time.perf_counter()

        async def draw(drawn: CompletionJob) -> Completion:
            async with places:
                return await complete_once(self.engine, drawn)

        try:
            async with asyncio.TaskGroup() as group:
                drawing = [group.create_task(draw(each)) for each in _draws(job, self.decoding, question.seed)]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        completions = [each.result() for each in drawing]
        timings = [completion.timings for completion in completions]
        return ModelOutput(
            texts=tuple(completion.text for completion in completions),
            shown=shown,
            prompt_tokens=timings[0].prompt_evaluated + timings[0].prompt_reused,
            reused_tokens=timings[0].prompt_reused,
            answer_tokens=sum(each.decode_tokens for each in timings),
            latency_ms=(time.perf_counter() - began) * 1000,
            beside=self.at_once,
        )


async def fitting(question: ModelInput, answer: Callable[[ModelInput, int], Awaitable[ModelOutput]]) -> ModelOutput:
    """The answer with as many of the examples shown as fit; raises what ``answer`` raises when not even none do."""
    for shown in range(len(question.shown), 0, -1):
        try:
            return await answer(question, shown)
        except InvalidInput:
            continue
    return await answer(question, 0)


def job_for(
    question: ModelInput, shown: int, ids: PromptFormats, *, context_tokens: int, max_tokens: int
) -> CompletionJob:
    """What completion would be asked, decoded greedily, with the first ``shown`` examples."""
    example, examples = question.example, question.shown[:shown]
    intent = isinstance(example, IntentExample)
    job = CompletionJob(
        document=Document("", language=example.language),
        format=formats.get(ids.intent if intent else ids.fill),
        task=Task.INTENT if intent else Task.FILL,
        context_tokens=context_tokens,
        max_tokens=max_tokens,
        adapter=question.adapter,
    )
    if isinstance(example, IntentExample):
        shots = tuple(Shot(each.intent, each.code) for each in examples if isinstance(each, IntentExample))
        return replace(job, intent=example.intent, shots=shots)
    context = example.context if question.context is None else question.context
    chunks = tuple(_chunk(each) for each in examples if isinstance(each, FillExample))
    document = Document.normalized(example.prefix, example.suffix, path=example.path, language=example.language)
    return replace(job, document=document, context=(*chunks, *context))


def _draws(job: CompletionJob, decoding: Decoding, seed: int) -> Iterator[CompletionJob]:
    if not isinstance(decoding, Samples):
        yield job
        return
    for number in range(decoding.count):
        sampling = SamplingParams(decoding.temperature, decoding.top_p, seed * SEED_STEP + number)
        yield replace(job, sampling=sampling)


def _chunk(example: FillExample) -> ContextChunk:
    """A solved hole as a piece of another file, as an editor would send it."""
    before, after = lines_of(example.prefix)[-8:], lines_of(example.suffix)[:4]
    return ContextChunk(path=example.path or "example", text="".join((*before, example.middle, *after)))


@dataclass(frozen=True)
class Greedy:
    """One answer, the likeliest token at each step: what is served."""

    answers = 1
    """Per item."""

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {"decoding": "greedy"}


@dataclass(frozen=True)
class Samples:
    """Several answers, drawn."""

    count: int
    temperature: float = 0.6
    top_p: float = 0.95
    """Both the study's, for APPS."""

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InvalidInput(
                f"{self.count} samples at temperature {self.temperature:g} and top-p {self.top_p:g}",
                why="there must be one at least, the temperature in (0, 2], top-p in (0, 1]",
            )

    @property
    def answers(self) -> int:
        """Per item."""
        return self.count

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {
            "decoding": f"{self.count} samples",
            "temperature": f"{self.temperature:g}",
            "top_p": f"{self.top_p:g}",
        }


@dataclass(frozen=True)
class Beams:
    """The likeliest answers that beam search finds, best first; the study's for Conala and CodeAlpaca."""

    width: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64:
            raise InvalidInput(f"{self.width} beams", why="there must be 1 to 64")

    @property
    def answers(self) -> int:
        """Per item."""
        return self.width

    @property
    def facts(self) -> dict[str, str]:
        """For the record."""
        return {"decoding": f"beam search, {self.width} beams, all returned"}


Decoding = Greedy | Samples | Beams


SERVED_AT_ONCE = 1
"""With llama.cpp several are hardly faster, and each slot reads the common beginning of the prompts for itself."""
MAX_BATCH_ROWS = 128
"""Answers, samples or beams that torch writes at once: beyond, a processor's time per token hardly falls."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that decides an answer, besides the question and the model file. Can be sent to another machine."""

    installation: Installation
    decoding: Decoding
    context_tokens: int
    max_tokens: int
    at_once: int | None = None
    """Questions answered together on one machine; None: as many as its engine is fast with."""


def engine_of(installation: Installation, decoding: Decoding) -> str:
    """The id of the engine that answers: the chosen one, unless only torch can."""
    return TORCH if isinstance(decoding, Beams) else factory.engine_id(installation.settings)


@asynccontextmanager
async def open_model(plan: ModelSpec, path: Path) -> AsyncGenerator[Model, None]:
    """The answerer with the model at ``path`` loaded, until the block ends; raises what the engine raises."""
    batched = engine_of(plan.installation, plan.decoding) == TORCH
    async with (_batched if batched else _served)(plan, path) as answerer:
        yield answerer


@asynccontextmanager
async def _served(plan: ModelSpec, path: Path) -> AsyncGenerator[Model, None]:
    at_once = plan.at_once or SERVED_AT_ONCE
    settings = measurement_settings(plan.installation.settings, slots=at_once)
    async with temporary_engine(settings, plan.installation.entry, path) as engine:
        yield ServedModel(
            engine=engine,
            formats=plan.installation.entry.prompt_formats,
            context_tokens=plan.context_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
        )


@asynccontextmanager
async def _batched(plan: ModelSpec, path: Path) -> AsyncGenerator[Model, None]:
    set_wait_policy(plan.installation.settings.wait_policy)  # on another machine nothing has set it yet
    # These load torch, which takes seconds.
    from peft_daemon.engines.torch.base_model import load_base  # noqa: PLC0415
    from peft_evaluation.batch_engine.engine import BatchedEngine, BeamSearchModel  # noqa: PLC0415

    settings, formats, answers = (
        plan.installation.settings,
        plan.installation.entry.prompt_formats,
        plan.decoding.answers,
    )
    at_once = plan.at_once or max(1, MAX_BATCH_ROWS // answers)
    engine = BatchedEngine(
        partial(load_base, path, settings.torch_precision),
        model_id=plan.installation.entry.id,
        context_tokens=plan.context_tokens,
        rows=at_once * answers,
        threads=settings.threads,
    )
    await engine.start()
    try:
        await engine.ready()
        if isinstance(plan.decoding, Beams):
            yield BeamSearchModel(
                engine=engine,
                formats=formats,
                context_tokens=plan.context_tokens,
                max_tokens=plan.max_tokens,
                decoding=plan.decoding,
                at_once=at_once,
            )
            return
        yield ServedModel(
            engine=engine,
            formats=formats,
            context_tokens=plan.context_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
            draws_at_once=answers,
        )
    finally:
        await engine.stop()
