"""A request understood, and what the engine is asked for it: the whole prompt, or a short one that is read sooner.

A full prompt is some 600 tokens, which two processor cores read in seven seconds; a short one takes little more than
one. So the first keys in a place whose text was not read yet are answered from a short prompt. The full one is read
while the user waits for nothing, and is used as soon as it costs little more. How much is little depends on how fast
the engine was seen to read: a fast one always gets the full prompt. Raw requests are those of other tools'
protocols: they continue a text, fill a hole or answer a chat, without the post-processing that editors get. Which
adapter and format a request gets is decided in ``service``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

from peft_core.api_types import AdapterUse, ContextChunk, SamplingParams, Scope, Task, Timings
from peft_core.code.document import Document
from peft_core.decisions import Decider
from peft_core.errors import InvalidInput
from peft_core.privacy.values import masked
from peft_core.settings import Settings
from peft_core.status_types import ServingLimit
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.completion import prompt
from peft_daemon.completion.cursor import Extent
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.prompt import RemoteTokenizer, Shot
from peft_daemon.engines import limits
from peft_daemon.engines.base import Engine, EngineSpeed, GenerationRequest, Prompt, PromptCachingEngine, Segment

SHORT_PROMPT_TOKENS = 224
"""Budget of a short prompt. Estimates and the steps of windows make it some 105 tokens long."""
MAX_EXTRA_UNREAD_TOKENS = 48
"""Unread tokens that a full prompt may always have more than a short one: half a second of two slow cores, once."""
MAX_UNREAD_TOKENS = 32
"""Unread tokens up to which no shorter prompt is ever tried."""
EXTRA_READING_S, READING_S = 0.65, 0.3
"""The same two limits as times, for engines that read more than the limits above in them."""
MIN_READ_TOKENS, MIN_WRITTEN_TOKENS = 32, 8
"""Less says little of the speed: part of a reading's time does not depend on its length."""
NEWEST_SPEED_WEIGHT = 0.3

MAX_ANSWER_SHARE = 0.5
"""Part of the context that the answer to a hole may take; some clients ask for as many tokens as there are."""

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
    least_confidence: float = 0.0
    """How likely a text must be right to be shown, from 0 (everything is) to 1."""
    silent_in: tuple[Scope, ...] = ()
    """Where no suggestion begins."""

    @cached_property
    def cache_key(self) -> CacheKey:
        """The job without the text around the cursor, which cached answers are compared with apart from it."""
        document = replace(self.document, prefix="", suffix="")
        return replace(self, document=document, adapter_use=None, automatic=False, least_confidence=0.0, silent_in=())

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
    def hopeless(self) -> Decider | None:
        """Why the model need not be asked: nothing to go by, or no place for a text; None if it is to be asked."""
        if not self.fills:
            return None
        document = self.document
        if document.suffix[:1].isalnum() or document.suffix[:1] == "_":
            return Decider.IN_WORD
        if not (document.prefix + self.lead + document.suffix).strip():
            return Decider.NOTHING_AROUND
        return Decider.IN_SECRET if prompt.inside_secret(document) else None

    @property
    def unwanted(self) -> Decider | None:
        """Why no answer is to begin here, though there could be one; None if it is wanted."""
        if not self.silent_in or not self.fills or (scope := self.target.scope) not in self.silent_in:
            return None
        return Decider.IN_COMMENT if scope == Scope.COMMENT else Decider.IN_STRING

    def after(self, typed: str) -> CompletionJob:
        """The same job after ``typed`` was typed."""
        return replace(self, document=replace(self.document, prefix=self.document.prefix + typed))


class Limits:
    """What the requests to one engine may cost, by how fast it was seen to read and write.

    The speed is a moving mean over generations; ``known`` is that of earlier daemons. ``settings`` fix some limits.
    """

    def __init__(self, settings: Settings, known: EngineSpeed = EngineSpeed()) -> None:
        self._settings = settings
        self.speed = known
        self.prompt_tokens = 0
        """Longest prompt of a completion."""
        self._follow_speed()

    def note(self, timings: Timings) -> None:
        """Take a generation that was not interrupted while it read into account, as far as it did enough."""
        reading = _rate(timings.prompt_evaluated, timings.prompt_ms, MIN_READ_TOKENS)
        writing = _rate(timings.decode_tokens, timings.decode_ms, MIN_WRITTEN_TOKENS)
        if reading or writing:
            self.speed = EngineSpeed(_mean(self.speed.reading, reading), _mean(self.speed.writing, writing))
            self._follow_speed()

    def _follow_speed(self) -> None:
        self.prompt_tokens = limits.prompt_tokens(self._settings, self.speed, self.prompt_tokens)
        self.step_tokens = limits.step_tokens(self._settings, self.speed)
        """Prompt tokens that are read between two moments at which a request can be cancelled."""
        self.unread_tokens = max(MAX_UNREAD_TOKENS, int(self.speed.reading * READING_S))
        """Unread tokens up to which no shorter prompt is tried."""
        self.extra_unread_tokens = max(MAX_EXTRA_UNREAD_TOKENS, int(self.speed.reading * EXTRA_READING_S))
        """Unread tokens that a full prompt may always have more than a short one."""
        self.looks_ahead = limits.looks_ahead(self._settings, self.speed)
        """Whether the next suggestion is prepared while one is shown."""

    def explained(self, context_tokens: int) -> list[ServingLimit]:
        """Return the limits, each with its reason; ``context_tokens`` is the context that is served."""
        settings, reading, writing = self._settings, self.speed.reading, self.speed.writing

        def read_in(seconds: float, setting: str, least: int, value: int) -> str:
            if getattr(settings, setting):
                return f"`{setting}` says so"
            if not reading:
                return "the least, until the engine's speed is known"
            what = f"{reading * seconds:.0f} are read in {seconds} s"
            return f"the least; {what}" if value == least else what

        step, longest = self.step_tokens, self.prompt_tokens
        written = f"the engine writes {writing:.0f} tokens a second" if writing else "until the engine's speed is known"
        return [
            ServingLimit(
                "prompt_tokens", longest, read_in(limits.PROMPT_S, "prompt_tokens", limits.LEAST_PROMPT_TOKENS, longest)
            ),
            ServingLimit(
                "full_prompt_unread_tokens",
                self.extra_unread_tokens,
                f"with more to read, a short one comes first; what is read in {EXTRA_READING_S} s",
            ),
            ServingLimit("step_tokens", step, read_in(limits.STEP_S, "batch_tokens", limits.LEAST_STEP_TOKENS, step)),
            ServingLimit(
                "context_tokens",
                context_tokens,
                "`context_tokens` says so" if settings.context_tokens else "for the longest prompt when it started",
            ),
            ServingLimit(
                "look_ahead", int(self.looks_ahead), written if settings.look_ahead else "`look_ahead` says so"
            ),
        ]


def _rate(tokens: int, ms: float, least: int) -> float:
    """Tokens per second; 0 for too few of them."""
    return 1000 * tokens / ms if tokens >= least and ms > 0 else 0.0


def _mean(before: float, newest: float) -> float:
    """The moving mean with a newest value; 0 is none."""
    return before + NEWEST_SPEED_WEIGHT * (newest - before) if before and newest else before or newest


class RequestBuilder:
    """Makes the requests of jobs to one engine."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits

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
            confidence=job.fills,
            step_tokens=self._limits.step_tokens,
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
        if unread <= self._limits.unread_tokens:
            return full, unread
        budget = min(SHORT_PROMPT_TOKENS, job.prompt_tokens or SHORT_PROMPT_TOKENS)
        try:
            short = await self.full(replace(job, prompt_tokens=budget, context=()))
        except InvalidInput:  # a sentence as long as that has to be read whole
            return full, unread
        short_unread = await self._engine.unread(short)
        sooner = short_unread + self._limits.extra_unread_tokens < unread
        return (short, short_unread) if sooner else (full, unread)


def read_only(request: GenerationRequest) -> GenerationRequest:
    """The request for the same prompt with nothing to write behind it."""
    return replace(request, max_tokens=0, time_budget_ms=None, begins_with="")


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """A generation without post-processing, as other tools' protocols ask for it."""

    prefix: str = ""
    suffix: str | None = None
    """None: continue ``prefix`` as it stands; else fill the hole between the two."""
    chat: Prompt = ()
    """A chat, written in the model's format; there is no prefix or suffix then."""
    max_tokens: int | None
    """0: only read the prompt. None, of a chat: as many as fit."""
    adapter: Manifest | None = None
    scale: float | None = None
    context: tuple[ContextChunk, ...] = ()
    path: str | None = None
    repository: str = ""
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()
    decode_budget_ms: int | None = None
    """Counted from the first token, so reading a long prompt does not use it up; holds once a line is complete."""
    logprobs: int = 0


async def build_raw(
    tokenizer: RemoteTokenizer,
    asked: RawRequest,
    *,
    hole_format: PromptFormat,
    context_tokens: int,
    step_tokens: int,
    adapter: AdapterLease | None,
) -> GenerationRequest:
    """Return the engine's request for a raw one.

    Raises InvalidInput when the prompt cannot fit, and what the engine raises.
    """
    stop, max_tokens, held = hole_format.stop, asked.max_tokens or 0, ""
    segments: Prompt = (Segment(masked(asked.prefix)),)
    if asked.chat:
        segments, stop = asked.chat, ()
        room = await _room_for_answer(tokenizer, segments, context_tokens)
        max_tokens = room if asked.max_tokens is None else min(asked.max_tokens, room)
    elif asked.suffix is not None:
        max_tokens = min(max_tokens, int(context_tokens * MAX_ANSWER_SHARE))
        segments, held = await prompt.build_for_engine(
            tokenizer,
            Document.normalized(asked.prefix, asked.suffix, path=asked.path),
            hole_format,
            prompt.prompt_budget(context_tokens, max(1, max_tokens)),
            context=asked.context,
            repository=asked.repository,
        )
    return GenerationRequest(
        prompt=segments,
        begins_with=held,
        max_tokens=max_tokens,
        step_tokens=step_tokens,
        adapter=adapter,
        stop=(*stop, *asked.stop),
        sampling=asked.sampling,
        logprobs=asked.logprobs,
    )


async def _room_for_answer(tokenizer: RemoteTokenizer, segments: Prompt, context_tokens: int) -> int:
    """Tokens that the prompt leaves of the context; raises InvalidInput when it leaves none."""
    counts = await tokenizer.count_tokens([each.text for each in segments if not each.special])
    tokens = sum(counts) + sum(each.special for each in segments)
    room = context_tokens - tokens - prompt.MARGIN_TOKENS
    if room < 1:
        raise InvalidInput(
            # Clients look for these words to shorten a chat.
            f"this model's maximum context length is {context_tokens} tokens",
            why=f"the messages have {tokens}",
            fix="Send fewer or shorter messages, or set `context_tokens` higher",
        )
    return room
