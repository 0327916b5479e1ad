"""Let every strategy answer every sample, with each of its seeds, and append each result to ``answers.jsonl``.

Results that are in the journal already are not computed again. Samples of one strategy and seed follow one another, so
that the engine has the common beginning of their prompts in its cache. As many samples are in progress at once as the
model allows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.journal import Journal
from peft_evaluation.model import Model, ModelInput, ModelOutput
from peft_evaluation.sample import SampleSet
from peft_evaluation.strategies import Strategy


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``answers.jsonl``."""

    strategy: str
    seed: int
    item: str
    given: ModelOutput
    examples: tuple[str, ...]
    """Ids of the examples that were shown."""
    memory_bytes: int
    """Memory of the engine after the answer."""
    session: str
    """When the process that generated it started, ISO 8601."""
    elapsed_s: float
    """Seconds from the start of the process until the result was there."""

    @property
    def key(self) -> tuple[str, int, str]:
        """Strategy, seed and item: unique in a journal."""
        return self.strategy, self.seed, self.item


@dataclass(frozen=True)
class GenerationProgress:
    """Progress: one more item is answered."""

    done: int
    of: int
    last: SampleResult


def generation_seconds(answered: Iterable[SampleResult]) -> float:
    """Return the time spent by all processes; the time of a killed one after its last item does not count."""
    longest: dict[str, float] = {}
    for each in answered:
        longest[each.session] = max(longest.get(each.session, 0.0), each.elapsed_s)
    return sum(longest.values())


@dataclass(frozen=True)
class _Session:
    name: str
    began: float

    @classmethod
    def begin(cls) -> _Session:
        return cls(datetime.now(UTC).isoformat(), time.monotonic())


@dataclass(frozen=True)
class _Request:
    strategy: Strategy
    seed: int
    index: int


async def generate(
    items: SampleSet,
    strategies: Sequence[Strategy],
    model: Model,
    *,
    lease: Callable[[str], AdapterLease],
    journal: Journal[SampleResult],
    on_progress: OnProgress[GenerationProgress],
) -> None:
    """Generate all results that are not in the journal yet.

    Raises what the model raises, and keeps results so far. ``journal`` is open for appending. ``lease`` returns the
    adapter of a digest.
    """
    session = _Session.begin()
    known = {answered.key for answered in journal.read()}
    of = sum(len(strategy.seeds) for strategy in strategies) * len(items.items)
    done = of - len([request for strategy in strategies for request in _missing(strategy, items, known)])
    for strategy in strategies:
        adapter = lease(strategy.adapter) if strategy.adapter else None
        left = _missing(strategy, items, known)

        async def generate_next(left: Iterator[_Request] = left, adapter: AdapterLease | None = adapter) -> None:
            nonlocal done
            for request in left:
                answered = await _generate_one(items, request, model, adapter, session)
                journal.append(answered)
                done += 1
                on_progress(GenerationProgress(done, of, answered))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(model.at_once):
                    group.create_task(generate_next())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


def _missing(strategy: Strategy, items: SampleSet, known: set[tuple[str, int, str]]) -> Iterator[_Request]:
    for seed in strategy.seeds:
        for index, item in enumerate(items.items):
            if (strategy.id, seed, item.id) not in known:
                yield _Request(strategy, seed, index)


async def _generate_one(
    items: SampleSet, request: _Request, model: Model, adapter: AdapterLease | None, session: _Session
) -> SampleResult:
    item, shown = items.items[request.index], request.strategy.examples(request.seed, request.index)
    context = request.strategy.context(request.index)
    given = await model.answer(
        ModelInput(example=item.example, shown=shown, adapter=adapter, seed=request.seed, context=context)
    )
    return SampleResult(
        strategy=request.strategy.id,
        seed=request.seed,
        item=item.id,
        given=given,
        examples=tuple(example.id for example in shown[: given.shown]),
        memory_bytes=model.memory_bytes(),
        session=session.name,
        elapsed_s=time.monotonic() - session.began,
    )
