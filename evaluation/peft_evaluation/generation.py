"""Let every strategy answer every sample, with each of its seeds, and append each result to ``answers.jsonl``.

What is in the journal already is not asked again. Samples of one strategy and seed follow one another, so that an
engine finds the common beginning of their prompts in its cache. As many are under way at once as the model takes.
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
    """Ids of those that were shown."""
    memory_bytes: int
    """Held by the engine afterwards."""
    session: str
    """When the process that did it began, ISO 8601, and ..."""
    elapsed_s: float
    """... how long after that this was done."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes it the only one of its kind."""
        return self.strategy, self.seed, self.item


@dataclass(frozen=True)
class GenerationProgress:
    """Progress: one more item is answered."""

    done: int
    of: int
    last: SampleResult


def generation_seconds(answered: Iterable[SampleResult]) -> float:
    """Time spent, over all processes that took part; what a killed one did after its last item is not in it."""
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
    answerer: Model,
    *,
    lease: Callable[[str], AdapterLease],
    journal: Journal[SampleResult],
    on_progress: OnProgress[GenerationProgress],
) -> None:
    """Answer what is not answered yet. Raises what the answerer raises; what was answered by then is kept.

    ``journal`` is open for appending. ``lease`` gives the adapter of a digest.
    """
    session = _Session.begin()
    known = {answered.key for answered in journal.read()}
    of = sum(len(strategy.seeds) for strategy in strategies) * len(items.items)
    done = of - len([work for strategy in strategies for work in _missing(strategy, items, known)])
    for strategy in strategies:
        adapter = lease(strategy.adapter) if strategy.adapter else None
        left = _missing(strategy, items, known)

        async def work_off(left: Iterator[_Request] = left, adapter: AdapterLease | None = adapter) -> None:
            nonlocal done
            for work in left:
                answered = await _generate_one(items, work, answerer, adapter, session)
                journal.append(answered)
                done += 1
                on_progress(GenerationProgress(done, of, answered))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(answerer.at_once):
                    group.create_task(work_off())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


def _missing(strategy: Strategy, items: SampleSet, known: set[tuple[str, int, str]]) -> Iterator[_Request]:
    for seed in strategy.seeds:
        for index, item in enumerate(items.items):
            if (strategy.id, seed, item.id) not in known:
                yield _Request(strategy, seed, index)


async def _generate_one(
    items: SampleSet, work: _Request, answerer: Model, adapter: AdapterLease | None, session: _Session
) -> SampleResult:
    item, shown = items.items[work.index], work.strategy.examples(work.seed, work.index)
    context = work.strategy.context(work.index)
    given = await answerer.answer(
        ModelInput(example=item.example, shown=shown, adapter=adapter, seed=work.seed, context=context)
    )
    return SampleResult(
        strategy=work.strategy.id,
        seed=work.seed,
        item=item.id,
        given=given,
        examples=tuple(example.id for example in shown[: given.shown]),
        memory_bytes=answerer.memory_bytes(),
        session=session.name,
        elapsed_s=time.monotonic() - session.began,
    )
