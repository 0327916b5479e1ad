"""How much faster an evaluation answers than one prompt at a time: same engine, model, items and prompts.

    PEFT_DAEMON_DATA=FOLDER python benchmarks/evaluation.py [--engine torch] [--items 64] [--alone 8] [--at-once 64]

The slow way is the study's loop: every prompt is read whole and alone, every sample anew. Between its prompts the
engine reads one that has nothing in common with them, so that nothing is reused; that time is not counted. It may be
stopped after the first ``--alone`` items, since its time per item does not depend on their number. Then all items are
answered as ``peft-daemon evaluate`` does with that engine, begun with an empty cache. The two take turns, strategy by
strategy; what is compared is seconds per item.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_core.status_types import TORCH
from peft_daemon.engines.base import Engine, GenerationRequest, Segment
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_daemon.models import catalogue
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import open_store
from peft_evaluation.datasets import catalogue as data_sets
from peft_evaluation.generation import SampleResult, generate
from peft_evaluation.journal import Journal
from peft_evaluation.model import Greedy, ModelInput, Samples, ServedModel
from peft_evaluation.sample import SampleSet
from peft_evaluation.strategies import Strategy, in_context, zero_shot
from peft_tuning.data.datasets.sources import DataLocations


class Row(msgspec.Struct, frozen=True):
    """One strategy."""

    strategy: str
    items: int
    one_at_a_time_s: float
    """Per item."""
    ours_s: float
    """Per item."""
    ratio: float
    alone: int
    """Items that were answered one at a time."""
    same_answers: int
    """Of those; batches round otherwise than single requests."""


@dataclass(frozen=True)
class Case:
    """What is asked, and how often."""

    name: str
    items: SampleSet
    strategy: Strategy
    decoding: Greedy | Samples


def answerer(engine: Engine, case: Case, at_once: int, draws_at_once: int) -> ServedModel:
    entry = catalogue.get(engine.status().model)
    return ServedModel(
        engine=engine,
        formats=entry.prompt_formats,
        context_tokens=4096,
        prompt_tokens=1024,
        max_tokens=case.items.max_tokens,
        decoding=case.decoding,
        at_once=at_once,
        draws_at_once=draws_at_once,
    )


async def one_at_a_time(engine: Engine, case: Case) -> tuple[float, list[str]]:
    """Seconds and answers of the loop."""
    seconds = 0.0
    texts: list[str] = []
    seed = case.strategy.seeds[0]
    single = replace(case, decoding=Greedy() if isinstance(case.decoding, Greedy) else Samples(1))
    for index, item in enumerate(case.items.items):
        question = ModelInput(example=item.example, shown=case.strategy.examples(seed, index), adapter=None, seed=seed)
        for number in range(case.decoding.answers):
            await forget(engine)
            began = time.perf_counter()
            asked = replace(question, seed=seed + number)
            given = await answerer(engine, single, 1, 1).answer(asked)
            seconds += time.perf_counter() - began
            texts += given.texts if number == 0 else ()
    return seconds, texts


async def forget(engine: Engine) -> None:
    """Let the cache hold something that no prompt begins with."""
    async for _item in engine.generate(GenerationRequest((Segment("zzz"),), max_tokens=1)):
        pass


async def ours(engine: Engine, case: Case, at_once: int, draws_at_once: int) -> tuple[float, list[str]]:
    """Seconds and answers of the product's first step."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "answers.jsonl", SampleResult) as journal:
        began = time.perf_counter()
        await generate(
            case.items,
            [case.strategy],
            answerer(engine, case, at_once, draws_at_once),
            lease=lambda _digest: sys.exit("no adapter is asked for"),
            journal=journal,
            on_progress=lambda _event: None,
        )
        seconds = time.perf_counter() - began
        by_item = {answered.item: answered.given.texts[0] for answered in journal.read()}
    return seconds, [by_item[item.id] for item in case.items.items]


@asynccontextmanager
async def fast(settings: Settings, entry: ModelEntry, path: Path, rows: int) -> AsyncGenerator[Engine, None]:
    """The engine with which ``evaluate`` answers many at once."""
    if settings.engine != TORCH:
        async with temporary_engine(measurement_settings(settings, slots=rows), entry, path) as engine:
            yield engine
        return
    from peft_daemon.engines.torch.base_model import load_base
    from peft_evaluation.batch_engine.engine import BatchedEngine

    batched = BatchedEngine(partial(load_base, path, "auto"), model_id=entry.id, context_tokens=4096, rows=rows)
    await batched.start()
    await batched.ready()
    yield batched
    await batched.stop()


def cases(items: SampleSet, samples: int) -> list[Case]:
    few = items.first(max(1, len(items.items) // samples))
    return [
        Case("zero-shot", items, zero_shot(), Greedy()),
        Case("icl-3", items, in_context(items, 3, seeds=(42,)), Greedy()),
        Case("icl-8", items, in_context(items, 8, seeds=(42,)), Greedy()),
        Case(f"zero-shot, {samples} samples", few, zero_shot(), Samples(samples)),
    ]


async def measure(options: argparse.Namespace) -> list[Row]:
    paths = Paths.from_environment()
    settings = resolve(command_line={"engine": options.engine}, user_file=paths.config_file).settings
    entry = catalogue.get(settings.model)
    path = open_store(settings, paths).path(entry)
    items = data_sets.load("conala", DataLocations.resolve(settings, paths)).first(options.items)
    rows = []
    for case in cases(items, options.samples):
        if options.case and case.name not in options.case:
            continue
        async with temporary_engine(measurement_settings(settings), entry, path) as engine:
            slow, texts = await one_at_a_time(engine, replace(case, items=case.items.first(options.alone)))
        draws = case.decoding.answers if settings.engine == TORCH else 1
        async with fast(settings, entry, path, options.at_once * draws) as engine:
            quick, mine = await ours(engine, case, options.at_once, draws)
        same = sum(a == b for a, b in zip(texts, mine, strict=False))
        count = len(case.items.items)
        alone, ours_s = slow / len(texts), quick / count
        rows.append(Row(case.name, count, alone, ours_s, alone / ours_s, len(texts), same))
        print(msgspec.json.encode(rows[-1]).decode(), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("llamacpp", "torch"), default="llamacpp")
    parser.add_argument("--items", type=int, default=12)
    parser.add_argument("--alone", type=int, default=12)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--case", action="append", help="Only these of the cases.")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = asyncio.run(measure(options))
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        print(
            f"{row.strategy:<22} {row.items} items  one at a time {row.one_at_a_time_s:6.2f} s an item  ours "
            f"{row.ours_s:6.2f} s  × {row.ratio:.1f}  same answers {row.same_answers} of {row.alone}"
        )


if __name__ == "__main__":
    main()
