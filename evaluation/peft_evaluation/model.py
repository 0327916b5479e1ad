"""Ask a model for an answer, with the prompts and the post-processing that completion uses.

``open_model`` opens the chosen serving engine, or the batch engine of ``batch_engine``, which also has beam search. The
nodes of a cluster open their models in the same way.
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

from peft_core.api_types import ContextChunk, SamplingParams, Task
from peft_core.code.document import Document, lines_of
from peft_core.errors import InvalidInput
from peft_core.files import private_folder
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import formats
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import Shot
from peft_daemon.completion.stream import Completion, complete_once
from peft_daemon.engines import factory
from peft_daemon.engines.base import Engine
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_daemon.engines.torch import families
from peft_daemon.engines.waiting import set_wait_policy
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning.data.examples import CompletionExample, FillExample, IntentExample
from peft_tuning.installation import Installation

SEED_STEP = 1_000
"""Sample number n of a strategy's seed s is drawn with the seed s * SEED_STEP + n."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One item, with what a strategy shows of it."""

    example: CompletionExample
    shown: tuple[CompletionExample, ...]
    """Solved examples to show before it; if they do not all fit, the last are left out."""
    adapter: AdapterLease | None
    seed: int
    context: tuple[ContextChunk, ...] | None = None
    """Chunks of other files to show instead of the example's own; None: the example's own."""


class ModelOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question: one text, or several with sampling and beam search."""

    texts: tuple[str, ...]
    shown: int
    """Number of examples that fitted into the prompt."""
    prompt_tokens: int
    reused_tokens: int
    """Prompt tokens whose state was in the engine's cache."""
    answer_tokens: int
    """Tokens of all texts."""
    latency_ms: float
    """From the question to the last token of the last text, including the time spent on questions at the same time."""
    beside: int = 1
    """Number of questions that were in progress at the same time."""
    node: str = ""
    """The node of a cluster that answered; empty: this machine."""


class Model(Protocol):
    """Answers questions; up to ``at_once`` calls may be in progress at the same time."""

    @property
    def at_once(self) -> int:
        """How many questions are answered at the same time."""

    async def answer(self, question: ModelInput) -> ModelOutput:
        """Return the answer; raises what the engine raises, InvalidInput if the question alone does not fit."""

    def memory_bytes(self) -> int:
        """Return the memory of the process that holds the model now."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that answers with a serving engine."""

    engine: Engine
    formats: PromptFormats
    context_tokens: int
    prompt_tokens: int
    """Longest prompt for a hole, as completion has it."""
    max_tokens: int
    decoding: Decoding
    at_once: int
    draws_at_once: int = 1
    """Samples of one question that are drawn at the same time."""

    def __post_init__(self) -> None:
        if isinstance(self.decoding, Beams):
            raise InvalidInput("serving engines have no beam search", fix="Use BeamSearchModel")

    async def answer(self, question: ModelInput) -> ModelOutput:
        """See ``Model``."""
        return await answer_with_fitting_examples(question, self._answer)

    def memory_bytes(self) -> int:
        """Return the memory of the engine's process."""
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
        draws, began = asyncio.Semaphore(self.draws_at_once), time.perf_counter()

        async def draw(drawn: CompletionJob) -> Completion:
            async with draws:
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


async def answer_with_fitting_examples(
    question: ModelInput, answer: Callable[[ModelInput, int], Awaitable[ModelOutput]]
) -> ModelOutput:
    """Call ``answer`` with as many of the examples as fit; raises what it raises without any example."""
    for shown in range(len(question.shown), 0, -1):
        try:
            return await answer(question, shown)
        except InvalidInput:
            continue
    return await answer(question, 0)


def job_for(
    question: ModelInput,
    shown: int,
    ids: PromptFormats,
    *,
    context_tokens: int,
    prompt_tokens: int,
    max_tokens: int,
) -> CompletionJob:
    """Return the completion request for a question with the first ``shown`` examples, decoded greedily.

    ``prompt_tokens`` is the longest prompt for a hole; a sentence's has all examples that fit into the context.
    """
    example, examples = question.example, question.shown[:shown]
    task = Task.INTENT if isinstance(example, IntentExample) else Task.FILL
    job = CompletionJob(
        document=Document("", language=example.language),
        format=formats.of_model(ids, task),
        task=task,
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
    return replace(job, document=document, context=(*chunks, *context), prompt_tokens=prompt_tokens)


def _draws(job: CompletionJob, decoding: Decoding, seed: int) -> Iterator[CompletionJob]:
    if not isinstance(decoding, Samples):
        yield job
        return
    for number in range(decoding.count):
        sampling = SamplingParams(decoding.temperature, decoding.top_p, seed * SEED_STEP + number)
        yield replace(job, sampling=sampling)


def _chunk(example: FillExample) -> ContextChunk:
    """Return a solved hole as a chunk of another file, as an editor would send it."""
    before, after = lines_of(example.prefix)[-8:], lines_of(example.suffix)[:4]
    return ContextChunk(path=example.path or "example", text="".join((*before, example.middle, *after)))


@dataclass(frozen=True)
class Greedy:
    """One answer, with the most likely token at each step, as in completions."""

    answers = 1
    """Answers per item."""

    @property
    def facts(self) -> dict[str, str]:
        """The decoding as the report names it."""
        return {"decoding": "greedy"}


@dataclass(frozen=True)
class Samples:
    """Several answers, sampled at random. The defaults are those of arXiv 2308.10462 for APPS."""

    count: int
    temperature: float = 0.6
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InvalidInput(
                f"{self.count} samples at temperature {self.temperature:g} and top-p {self.top_p:g}",
                why="there must be at least one, with a temperature in (0, 2] and top-p in (0, 1]",
            )

    @property
    def answers(self) -> int:
        """Answers per item."""
        return self.count

    @property
    def facts(self) -> dict[str, str]:
        """The decoding as the report names it."""
        return {
            "decoding": f"{self.count} samples",
            "temperature": f"{self.temperature:g}",
            "top_p": f"{self.top_p:g}",
        }


@dataclass(frozen=True)
class Beams:
    """The most likely answers by beam search, best first; arXiv 2308.10462 uses it for CoNaLa and CodeAlpaca."""

    width: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 64:
            raise InvalidInput(f"{self.width} beams", why="there must be 1 to 64")

    @property
    def answers(self) -> int:
        """Answers per item."""
        return self.width

    @property
    def facts(self) -> dict[str, str]:
        """The decoding as the report names it."""
        return {"decoding": f"beam search, {self.width} beams, all returned"}


Decoding = Greedy | Samples | Beams


SERVED_AT_ONCE = 1
"""Questions at once for a serving engine: more are hardly faster, as each slot evaluates the common prefix itself."""
MAX_BATCH_ROWS = 128
"""Sequences (answers, samples or beams) that torch generates at once: more are hardly faster on a processor."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What decides an answer besides the question and the model file. Can be sent to another machine."""

    installation: Installation
    decoding: Decoding
    context_tokens: int
    prompt_tokens: int
    max_tokens: int
    at_once: int | None = None
    """Questions that one machine answers at the same time; None: as many as its engine is fast with."""


def engine_of(installation: Installation, decoding: Decoding) -> str:
    """Return the id of the engine to use: torch for beam search, else the one of the settings.

    Raises InvalidInput where no engine can do this with the model.
    """
    if isinstance(decoding, Beams) and _has_encoder(installation):
        raise InvalidInput(
            f"there is no beam search for '{installation.entry.id}'",
            why="it has an encoder, and beams are searched in decoder-only models",
            fix="Leave --beams out, or give --samples",
        )
    return TORCH if isinstance(decoding, Beams) else factory.engine_id(installation.settings, installation.entry)


def _has_encoder(installation: Installation) -> bool:
    entry = installation.entry
    return entry.folder is not None and families.family_of(entry.family).encoder_decoder


@asynccontextmanager
async def open_model(
    plan: ModelSpec, path: Path, *, adapters_folder: Path | None = None
) -> AsyncGenerator[Model, None]:
    """Yield the model at ``path``, loaded until the block ends; raises what the engine raises.

    All adapters lie below ``adapters_folder``, which has to be there; None: in the installation's registry.
    """
    # Models with an encoder answer one question at a time, in the serving engine.
    batched = engine_of(plan.installation, plan.decoding) == TORCH and not _has_encoder(plan.installation)
    async with _batched(plan, path) if batched else _served(plan, path, adapters_folder) as model:
        yield model


@asynccontextmanager
async def _served(plan: ModelSpec, path: Path, adapters_folder: Path | None) -> AsyncGenerator[Model, None]:
    at_once = plan.at_once or SERVED_AT_ONCE
    settings = measurement_settings(plan.installation.settings, slots=at_once)
    adapters = adapters_folder or private_folder(plan.installation.paths.adapters)
    async with temporary_engine(settings, plan.installation.entry, path, adapters_folder=adapters) as engine:
        yield ServedModel(
            engine=engine,
            formats=plan.installation.entry.prompt_formats,
            context_tokens=plan.context_tokens,
            prompt_tokens=plan.prompt_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
        )


@asynccontextmanager
async def _batched(plan: ModelSpec, path: Path) -> AsyncGenerator[Model, None]:
    set_wait_policy(plan.installation.settings.wait_policy)  # not set yet in a process of a cluster
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
                prompt_tokens=plan.prompt_tokens,
                max_tokens=plan.max_tokens,
                decoding=plan.decoding,
                at_once=at_once,
            )
            return
        yield ServedModel(
            engine=engine,
            formats=formats,
            context_tokens=plan.context_tokens,
            prompt_tokens=plan.prompt_tokens,
            max_tokens=plan.max_tokens,
            decoding=plan.decoding,
            at_once=at_once,
            draws_at_once=answers,
        )
    finally:
        await engine.stop()
