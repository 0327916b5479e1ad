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

from peft_daemon.completion import prompt
from peft_daemon.completion.cursor import Cursor, Extent
from peft_daemon.completion.document import Document, normalize_newlines
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.postprocess import FILL_STEPS, INTENT_STEPS, Draft, apply
from peft_daemon.completion.prompt import Shot
from peft_daemon.engines.base import AdapterLease, Engine, Finish, GenerationRequest
from peft_daemon.protocol import ContextChunk, FinishReason, Task, Timings


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
class TextPart:
    """Text that the completion goes on with; all parts in a row are the beginning of ``Completion.text``."""

    text: str


@dataclass(frozen=True)
class Completion:
    """The end of a run."""

    text: str
    """In the document's own line endings."""
    reason: FinishReason
    replace_after: int
    timings: Timings


class Pipeline:
    """Completes jobs with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, job: Job, adapter: AdapterLease | None = None) -> AsyncGenerator[TextPart | Completion, None]:
        """Parts of the text as soon as they are certain, then the Completion.

        Closing the generator stops decoding. Raises InvalidInput when the prompt cannot fit, and what the engine
        raises.
        """
        fills = job.format.task is Task.FILL
        document = replace(job.document, prefix=job.document.prefix + job.lead)
        if fills and (_in_word(document) or not (document.prefix + document.suffix).strip()):
            yield Completion("", FinishReason.EMPTY, 0, Timings())
            return
        cursor = Cursor.of(document, job.single_line)
        budget = prompt.prompt_budget(job.context_tokens, job.max_tokens)
        built = await prompt.build(
            document,
            job.format,
            min(budget, job.prompt_tokens or budget),
            self._engine.count_tokens,
            intent=job.intent,
            context=job.context,
            repository=job.repository,
            shots=job.shots,
        )
        one_line = ("\n",) if fills and cursor.extent is Extent.LINE else ()
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
        answer, shown, draft = "", "", Draft("")
        finish: FinishReason | None = None
        timings = Timings()

        def process(*, final: bool = False) -> Draft:
            truncated = finish in (FinishReason.LENGTH, FinishReason.TIMEOUT)
            raw = prompt.unheld(normalize_newlines(answer), built.held)
            steps = FILL_STEPS if fills else INTENT_STEPS
            return apply(steps, Draft(raw, final=final, truncated=truncated), document, cursor)

        async with aclosing(self._engine.generate(request)) as items:
            async for item in items:
                timings = item.timings
                if isinstance(item, Finish):
                    finish = item.reason
                    break
                answer += item.text
                if prompt.contradicts(answer, built.held):
                    answer = ""
                    break
                if "\n" not in item.text and "\r" not in item.text:
                    continue
                draft = process()
                if draft.done:
                    break
                if draft.text:
                    so_far = document.restore(job.lead + draft.text)
                    if len(so_far) > len(shown) and so_far.startswith(shown):
                        yield TextPart(so_far[len(shown) :])
                        shown = so_far
        if not draft.done:
            draft = process(final=True)
        text = document.restore(job.lead + draft.text) if draft.text else ""
        if not text.startswith(shown):
            # Steps keep what they gave (a test holds them to it); should one not, what was shown stands.
            text = shown
        if len(text) > len(shown):
            yield TextPart(text[len(shown) :])
        reason = finish or FinishReason.STOP
        if not text and reason is not FinishReason.TIMEOUT:
            reason = FinishReason.EMPTY
        yield Completion(text, reason, draft.replace_after, timings)


def _in_word(document: Document) -> bool:
    """Whether a word goes on after the cursor: nothing can be inserted there that leaves it whole."""
    after = document.suffix[:1]
    return after.isalnum() or after == "_"
