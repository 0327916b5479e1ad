"""How much faster an evaluation answers than one prompt at a time: same engine, model, items and prompts.

    PEFT_DAEMON_DATA=FOLDER python benchmarks/evaluation.py [--items 12] [--at-once 1] [--json]

The slow way is the study's loop: every prompt is read whole and alone. Between its items the engine reads a prompt
that has nothing in common with them, so that nothing is reused; that time is not counted. Then the same items are
answered as ``peft-daemon evaluate`` does, begun with an empty cache. The two take turns, strategy by strategy.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from peft_daemon.config import resolve
from peft_daemon.engines.base import Engine, GenerationRequest, Segment
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store
from peft_daemon.paths import Paths
from peft_evaluation.answering import Question, ServedAnswerer
from peft_evaluation.datasets import catalogue as data_sets
from peft_evaluation.decoding import Greedy
from peft_evaluation.generating import Answered, generate
from peft_evaluation.items import ItemSet
from peft_evaluation.journal import Journal
from peft_evaluation.strategies.base import Strategy
from peft_evaluation.strategies.icl import in_context
from peft_evaluation.strategies.zero_shot import zero_shot
from peft_tuning.datasets.sources import Places
from peft_tuning.served import serving


class Row(msgspec.Struct, frozen=True):
    """One strategy."""

    strategy: str
    items: int
    one_at_a_time_s: float
    ours_s: float
    ratio: float
    same_answers: int
    """Of the items; batches round otherwise than single requests."""


def answerer(engine: Engine, items: ItemSet, at_once: int) -> ServedAnswerer:
    entry = catalogue.get(engine.status().model)
    return ServedAnswerer(
        engine=engine,
        formats=entry.prompt_formats,
        context_tokens=4096,
        max_tokens=items.max_tokens,
        decoding=Greedy(),
        at_once=at_once,
    )


async def one_at_a_time(engine: Engine, items: ItemSet, strategy: Strategy) -> tuple[float, list[str]]:
    """Seconds and answers of the loop."""
    asked, seconds, texts = answerer(engine, items, 1), 0.0, []
    for index, item in enumerate(items.items):
        await forget(engine)
        shown = strategy.examples(strategy.seeds[0], index)
        began = time.perf_counter()
        given = await asked.answer(Question(example=item.example, shown=shown, adapter=None, seed=strategy.seeds[0]))
        seconds += time.perf_counter() - began
        texts.append(given.texts[0])
    return seconds, texts


async def forget(engine: Engine) -> None:
    """Let the cache hold something that no prompt begins with."""
    async for _item in engine.generate(GenerationRequest((Segment("zzz"),), max_tokens=1)):
        pass


async def ours(engine: Engine, items: ItemSet, strategy: Strategy, at_once: int) -> tuple[float, list[str]]:
    """Seconds and answers of the product's first step."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "answers.jsonl", Answered) as journal:
        began = time.perf_counter()
        await generate(
            items,
            [strategy],
            answerer(engine, items, at_once),
            lease=lambda _digest: sys.exit("no adapter is asked for"),
            journal=journal,
            tell=lambda _event: None,
        )
        seconds = time.perf_counter() - began
        by_item = {answered.item: answered.given.texts[0] for answered in journal.read()}
    return seconds, [by_item[item.id] for item in items.items]


async def measure(options: argparse.Namespace) -> list[Row]:
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    entry = catalogue.get(settings.model)
    path = open_store(settings, paths).path(entry)
    items = data_sets.load("conala", Places.resolve(settings, paths)).first(options.items)
    rows = []
    for strategy in (zero_shot(), in_context(items, 3, seeds=(42,)), in_context(items, 8, seeds=(42,))):
        async with serving(settings, entry, path) as engine:
            slow, texts = await one_at_a_time(engine, items, strategy)
        async with serving(settings, entry, path, slots=options.at_once) as engine:
            fast, mine = await ours(engine, items, strategy, options.at_once)
        same = sum(a == b for a, b in zip(texts, mine, strict=True))
        rows.append(Row(strategy.id, len(items.items), slow, fast, slow / fast, same))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = asyncio.run(measure(options))
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        print(
            f"{row.strategy:<10} {row.items} items  one at a time {row.one_at_a_time_s:6.1f} s  ours "
            f"{row.ours_s:6.1f} s  × {row.ratio:.1f}  same answers {row.same_answers}"
        )


if __name__ == "__main__":
    main()
