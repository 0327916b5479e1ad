"""A request understood, and what the engine is asked for it: the whole prompt, or a short one that is read sooner.

A full prompt is some 600 tokens, which two processor cores read in seven seconds; a short one takes little more than
one. So the first keys in a place whose text was not read yet are answered from a short prompt. The full one is read
while the user waits for nothing, and is used as soon as it costs little more. Which adapter and format a request gets
is decided in ``service``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

from peft_core.api_types import AdapterUse, ContextChunk, SamplingParams, Task
from peft_core.code.document import Document
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import prompt
from peft_daemon.completion.cursor import Extent
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import Engine, GenerationRequest, PromptCachingEngine

SHORT_PROMPT_TOKENS = 224
"""Budget of a short prompt. Estimates and the steps of windows make it some 105 tokens long."""
MAX_EXTRA_UNREAD_TOKENS = 48
"""Unread tokens that a full prompt may have more than a short one: half a second, once."""
MAX_UNREAD_TOKENS = 32
"""Unread tokens up to which no shorter prompt is tried."""

CacheKey = Hashable
"""Equal for jobs that one answer can serve."""


@dataclass(frozen=True, kw_only=True)
class CompletionJob:
    """What is to be completed, and within which limits."""

    document: Document
    format: PromptFormat
    """How the prompt is written; its task says how the answer is treated."""
    context_tokens: int
    """Prompt and answer together."""
    max_tokens: int
    prompt_tokens: int | None = None
    """Longest prompt where it must be shorter than what fits."""
    task: Task = Task.FILL
    """The task of the request. The format's differs where a comment in the document is answered by filling in."""
    intent: str = ""
    lead: str = ""
    """Text to insert before the answer, e.g. the line end after the comment that asks for code."""
    context: tuple[ContextChunk, ...] = ()
    shots: tuple[Shot, ...] = ()
    """Solved examples to show before the sentence."""
    repository: str = ""
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()
    time_budget_ms: int | None = None
    """How long the engine may work on it; see ``scheduler``."""
    single_line: bool | None = None
    adapter: AdapterLease | None = None
    adapter_use: AdapterUse | None = None
    """The same adapter as clients are told of it."""
    document_key: str | None = None
    """A newer job with the same key supersedes this one and may use its answer. None: never."""
    automatic: bool = False
    """Asked for by a keystroke."""

    @cached_property
    def cache_key(self) -> CacheKey:
        """The job without the text around the cursor, which cached answers are compared with apart from it."""
        document = replace(self.document, prefix="", suffix="")
        return replace(self, document=document, adapter_use=None, automatic=False)

    @property
    def fills(self) -> bool:
        """Whether the answer fills a hole of the document; else it answers a sentence."""
        return self.format.task is Task.FILL

    @cached_property
    def target(self) -> Document:
        """The document with the lead before the cursor: where the answer goes."""
        return replace(self.document, prefix=self.document.prefix + self.lead)

    @cached_property
    def extent(self) -> Extent:
        """How far the answer may reach."""
        return Extent.at_cursor(self.target, self.single_line)

    @property
    def hopeless(self) -> bool:
        """Whether the model need not be asked: nothing to go by, or no place for a text."""
        if not self.fills:
            return False
        document = self.document
        in_word = document.suffix[:1].isalnum() or document.suffix[:1] == "_"
        empty = not (document.prefix + self.lead + document.suffix).strip()
        return in_word or empty or prompt.inside_secret(document)

    def after(self, typed: str) -> CompletionJob:
        """The same job after ``typed`` was typed."""
        return replace(self, document=replace(self.document, prefix=self.document.prefix + typed))


class RequestBuilder:
    """Makes the requests of jobs to one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def full(self, job: CompletionJob) -> GenerationRequest:
        """Build the request with all that fits.

        Raises InvalidInput when the prompt cannot fit, and what the engine raises.
        """
        budget = prompt.prompt_budget(job.context_tokens, job.max_tokens)
        segments, held = await prompt.build_for_engine(
            self._engine,
            job.target,
            job.format,
            min(budget, job.prompt_tokens or budget),
            intent=job.intent,
            context=job.context,
            repository=job.repository,
            shots=job.shots,
        )
        one_line = ("\n",) if job.fills and job.extent is Extent.LINE else ()
        return GenerationRequest(
            prompt=segments,
            begins_with=held,
            max_tokens=job.max_tokens,
            adapter=job.adapter,
            stop=(*job.format.stop, *one_line, *job.stop),
            time_budget_ms=job.time_budget_ms,
            sampling=job.sampling,
        )

    async def quickest(self, job: CompletionJob) -> tuple[GenerationRequest, int]:
        """Build the request that is answered soonest; the full one if it is nearly so.

        Returns it with the number of prompt tokens that the engine would have to read. Raises as ``full`` does.
        """
        return await self._quicker(await self.full(job), job)

    async def reading(self, job: CompletionJob) -> list[GenerationRequest]:
        """Build the requests that read the prompts of a job and write nothing, the most urgent first."""
        full = await self.full(job)
        first, _ = await self._quicker(full, job)
        return [read_only(each) for each in ((full,) if first is full else (first, full))]

    async def _quicker(self, full: GenerationRequest, job: CompletionJob) -> tuple[GenerationRequest, int]:
        if not isinstance(self._engine, PromptCachingEngine):
            return full, 0
        unread = await self._engine.unread(full)
        if unread <= MAX_UNREAD_TOKENS:
            return full, unread
        budget = min(SHORT_PROMPT_TOKENS, job.prompt_tokens or SHORT_PROMPT_TOKENS)
        try:
            short = await self.full(replace(job, prompt_tokens=budget))
        except InvalidInput:  # a sentence as long as that has to be read whole
            return full, unread
        short_unread = await self._engine.unread(short)
        return (short, short_unread) if short_unread + MAX_EXTRA_UNREAD_TOKENS < unread else (full, unread)


def read_only(request: GenerationRequest) -> GenerationRequest:
    """The request for the same prompt with nothing to write behind it."""
    return replace(request, max_tokens=0, time_budget_ms=None, begins_with="")
