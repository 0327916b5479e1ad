"""One completion from start to end: prompt, decoding, post-processing, and stopping as early as possible.

Does not cover which adapter or format is used, the queue, or what a client sees of all this.

Decoding is stopped by closing the engine's generator as soon as a post-processing step says that nothing can be added
to the text. The engine's ``Finish`` is then missing; its last ``Delta`` has the timings, and waiting for exact ones
would cost the time that stopping saves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from peft_core.api_types import ContextChunk, FinishReason, Task, Timings
from peft_core.code.document import Document
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import prompt
from peft_daemon.completion.answer import Answer
from peft_daemon.completion.cursor import Cursor, Extent
from peft_daemon.completion.following import Completion, Place, TextPart, follow
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import Engine, GenerationRequest


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be completed, and within which limits."""

    document: Document
    format: PromptFormat
    """How the prompt is written; its task says how the answer is treated."""
    context_tokens: int
    """Prompt and answer together."""
    max_tokens: int
    prompt_tokens: int | None = None
    """The longest prompt, where it is to be shorter than what fits: a machine reads only so much in the time."""
    task: Task = Task.FILL
    """What was asked for; the same as the format's unless a comment in the document is answered by filling in."""
    intent: str = ""
    lead: str = ""
    """Text to insert before the answer, e.g. the line end after the comment that asks for code."""
    context: tuple[ContextChunk, ...] = ()
    shots: tuple[Shot, ...] = ()
    """Solved examples to show before the sentence."""
    repository: str = ""
    time_budget_ms: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    single_line: bool | None = None


@dataclass(frozen=True)
class Prepared:
    """A job ready for the engine: what to ask, and where the answer goes."""

    request: GenerationRequest
    place: Place


class Pipeline:
    """Completes jobs with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def prepare(self, job: Job, adapter: AdapterLease | None = None) -> Prepared:
        """Build the prompt; raises InvalidInput when it cannot fit."""
        place = place_of(job)
        budget = prompt.prompt_budget(job.context_tokens, job.max_tokens)
        built = await prompt.build(
            place.document,
            job.format,
            min(budget, job.prompt_tokens or budget),
            self._engine.count_tokens,
            intent=job.intent,
            context=job.context,
            repository=job.repository,
            shots=job.shots,
        )
        one_line = ("\n",) if place.fills and place.cursor.extent is Extent.LINE else ()
        request = GenerationRequest(
            prompt=built.prompt,
            max_tokens=job.max_tokens,
            adapter=adapter,
            stop=(*job.format.stop, *one_line, *job.stop),
            time_budget_ms=job.time_budget_ms,
            temperature=job.temperature,
            top_p=job.top_p,
            seed=job.seed,
            begins_with=built.held,
        )
        return Prepared(request, place)

    async def run(self, job: Job, adapter: AdapterLease | None = None) -> AsyncGenerator[TextPart | Completion, None]:
        """Parts of the text as soon as they are certain, then the Completion.

        Closing the generator stops decoding. Raises InvalidInput when the prompt cannot fit, and what the engine
        raises.
        """
        if is_hopeless(job):
            yield NOTHING
            return
        prepared = await self.prepare(job, adapter)
        answer = Answer(prepared.place.document, prepared.request.begins_with)
        async with aclosing(self._engine.generate(prepared.request)) as items:

            async def grown() -> None:
                try:
                    answer.add(await anext(items))
                except StopAsyncIteration:
                    answer.end()

            async with aclosing(follow(answer, grown, prepared.place)) as parts:
                async for part in parts:
                    yield part


NOTHING = Completion("", FinishReason.EMPTY, 0, Timings())
"""The end of a job that the model is not asked about."""


def is_hopeless(job: Job) -> bool:
    """Whether there is nothing to go by, or no place for a text: the model need not be asked."""
    if job.format.task is not Task.FILL:
        return False
    prefix, suffix = job.document.prefix + job.lead, job.document.suffix
    return _in_word(job.document) or not (prefix + suffix).strip() or prompt.inside_secret(job.document)


def place_of(job: Job) -> Place:
    """Where a job's answer goes."""
    document = replace(job.document, prefix=job.document.prefix + job.lead)
    return Place(document, Cursor.of(document, job.single_line), job.format.task is Task.FILL, job.lead)


def _in_word(document: Document) -> bool:
    """Whether a word goes on after the cursor: nothing can be inserted there that leaves it whole."""
    after = document.suffix[:1]
    return after.isalnum() or after == "_"
