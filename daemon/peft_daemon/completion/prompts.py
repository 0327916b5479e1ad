"""How much of a document the model is shown: all that fits, or less where most of that would have to be read first.

A full prompt is some 600 tokens, which two processor cores read in seven seconds; a short one takes little more than
one. So the first keys in a place nobody has read are answered from a short prompt, and the full one is read while
nobody waits and used as soon as it costs little more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion.pipeline import Job, Pipeline, Prepared
from peft_daemon.engines.base import Engine, PromptCachingEngine

SHORT_TOKENS = 224
"""Budget of a short prompt; what is estimated and left for steps in it makes it some 105."""
WORTH_READING = 48
"""Unread tokens that a full prompt may have more than a short one: half a second, once."""
AT_HAND = 32
"""Unread tokens up to which nothing shorter is looked for."""


@dataclass(frozen=True)
class Sized:
    """A prompt, and how many tokens of it the engine would have to compute now."""

    prepared: Prepared
    unread: int


class Prompts:
    """The prompts of one engine's jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._pipeline = engine, Pipeline(engine)

    async def full(self, job: Job, lease: AdapterLease | None) -> Prepared:
        """With all that fits; raises InvalidInput when it cannot fit, and what the engine raises."""
        return await self._pipeline.prepare(job, lease)

    async def quickest(self, job: Job, lease: AdapterLease | None) -> Sized:
        """The one that is answered soonest, the full one if it is nearly so; raises as ``full`` does."""
        return await self._quicker(await self.full(job, lease), job, lease)

    async def _quicker(self, full: Prepared, job: Job, lease: AdapterLease | None) -> Sized:
        if not isinstance(self._engine, PromptCachingEngine):
            return Sized(full, 0)
        unread = await self._engine.unread(full.request)
        if unread <= AT_HAND:
            return Sized(full, unread)
        budget = min(SHORT_TOKENS, job.prompt_tokens or SHORT_TOKENS)
        try:
            short = await self._pipeline.prepare(replace(job, prompt_tokens=budget), lease)
        except InvalidInput:  # a sentence as long as that has to be read whole
            return Sized(full, unread)
        short_unread = await self._engine.unread(short.request)
        return Sized(short, short_unread) if short_unread + WORTH_READING < unread else Sized(full, unread)

    async def to_read(self, job: Job, lease: AdapterLease | None) -> list[Prepared]:
        """What to read before anybody asks, the most urgent first, with nothing to write; raises as ``full`` does."""
        full = await self.full(job, lease)
        first = (await self._quicker(full, job, lease)).prepared
        return [only_read(each) for each in ((full,) if first is full else (first, full))]


def only_read(prepared: Prepared) -> Prepared:
    """The same prompt, with nothing to write behind it."""
    return replace(prepared, request=replace(prepared.request, max_tokens=0, time_budget_ms=None, begins_with=""))
