"""Does code of other files pay? Holes in held-out code, filled with the window of the document that serves, and chunks.

    python benchmarks/context_quality.py REPOSITORY ... [--count 40] [--adapter python-fim] [--out FILE.jsonl] [--json]
        [--way none --way served:300 --way signatures:300 --way passages:300]

The document has at most ``prompt_tokens`` in the prompt, as when serving, and the chunks come on top. Same holes,
greedy decoding and post-processing for all ways; each is compared with ``none`` hole by hole. The same command goes on
where an interrupted one stopped. The repositories must be git work trees that the adapter was not tuned on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peft_core.api_types import ContextChunk, Task
from peft_core.code.document import Document
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.completion import formats
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import CHARACTERS_PER_TOKEN, PREFIX_SHARE
from peft_daemon.completion.stream import complete_once
from peft_daemon.engines import limits
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_evaluation.datasets.catalogue import load_repository
from peft_evaluation.journal import Journal
from peft_evaluation.sample import SampleSet
from peft_evaluation.scorers.metrics import MetricKind, exact_match, similarity
from peft_evaluation.stats import compare, measure
from peft_evaluation.strategies import ChunkMixture, Strategy, alone, with_context
from peft_tuning.data.examples import FillExample
from peft_tuning.installation import Installation

SEED = 42
MAX_TOKENS = 96
NONE = "none"


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """One hole filled one way."""

    adapter: str
    way: str
    repository: str
    hole: str
    text: str
    exact: float
    similarity: float
    chunk_characters: int
    prompt_tokens: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it the only one of its kind."""
        return self.adapter, self.way, self.repository, self.hole


@dataclass(frozen=True)
class Asked:
    """A repository's holes, and the chunks of each way."""

    items: SampleSet
    ways: Mapping[str, Strategy]


def strategy(way: str, items: SampleSet) -> Strategy:
    """What a way shows: ``none``, or a mixture and its tokens, as ``served:300``."""
    kind, _, tokens = way.partition(":")
    return alone(items) if kind == NONE else with_context(items, int(tokens), ChunkMixture(kind))


def windowed(example: FillExample, characters: int) -> Document:
    """The document, cut to what serving would show of it: whole lines, three quarters of them before the cursor."""
    prefix, suffix = example.prefix, example.suffix
    share = int(characters * PREFIX_SHARE)
    room = max(share, characters - len(suffix))
    if len(prefix) > room:
        prefix = prefix[-room:].partition("\n")[2] or prefix[-room:]
    room = max(characters - share, characters - len(prefix))
    if len(suffix) > room:
        suffix = suffix[:room].rpartition("\n")[0] + "\n"
    return Document.normalized(prefix, suffix, path=example.path, language=example.language)


async def run(
    installation: Installation, asked: Sequence[Asked], adapters: Sequence[str], count: int, out: Path
) -> list[Filled]:
    """Fill what is not filled yet, one hole of each repository at a time, so that a part of it is balanced too."""
    form = formats.get(installation.entry.prompt_formats.fill)
    characters = int((installation.settings.prompt_tokens or limits.LEAST_PROMPT_TOKENS) * CHARACTERS_PER_TOKEN)
    with Journal(out, Filled) as journal:
        known = {each.key for each in journal.read()}
        settings = measurement_settings(installation.settings)
        async with temporary_engine(settings, installation.entry, installation.base.path) as engine:
            for number in range(count):
                for each in asked:
                    for adapter in adapters:
                        for way, shown in each.ways.items():
                            if number >= len(each.items.items):
                                continue
                            item = each.items.items[number]
                            example, key = item.example, (adapter, way, each.items.name, item.id)
                            if key in known or not isinstance(example, FillExample):
                                continue
                            chunks: tuple[ContextChunk, ...] = shown.context(number) or ()
                            job = CompletionJob(
                                document=windowed(example, characters),
                                format=form,
                                task=Task.FILL,
                                context_tokens=limits.context_tokens(
                                    installation.settings, installation.entry.context_tokens
                                ),
                                max_tokens=MAX_TOKENS,
                                context=chunks,
                                adapter=leased(installation, adapter),
                            )
                            end = await complete_once(engine, job)
                            journal.append(
                                Filled(
                                    adapter=adapter,
                                    way=way,
                                    repository=each.items.name,
                                    hole=item.id,
                                    text=end.text,
                                    exact=exact_match([end.text], example.middle)["em@1"],
                                    similarity=similarity(end.text, example.middle)["similarity"],
                                    chunk_characters=sum(len(chunk.text) for chunk in chunks),
                                    prompt_tokens=end.timings.prompt_evaluated + end.timings.prompt_reused,
                                )
                            )
                print(f"\r{number + 1} of {count}", end="", file=sys.stderr, flush=True)
        return list(journal.read())


def leased(installation: Installation, adapter: str) -> AdapterLease | None:
    """The adapter at the scale of its manifest; None for ``base``."""
    if adapter == "base":
        return None
    manifest = installation.registry.get(adapter)
    return installation.registry.lease(manifest, manifest.scale, engine="llamacpp")


def rows(filled: Iterable[Filled], adapters: Sequence[str], ways: Sequence[str]) -> list[dict[str, object]]:
    """A line of the table for each adapter and way."""
    everything = list(filled)
    found: list[dict[str, object]] = []
    for adapter in adapters:
        of = {
            way: {(f.repository, f.hole): f for f in everything if f.adapter == adapter and f.way == way}
            for way in ways
        }
        shared = set.intersection(*(set(each) for each in of.values()))
        if not shared:
            continue
        for way in ways:
            row: dict[str, object] = {"adapter": adapter, "way": way, "holes": len(shared)}
            for metric, kind in (("exact", MetricKind.RATE), ("similarity", MetricKind.MEAN)):
                ours = {"/".join(key): float(getattr(of[way][key], metric)) for key in sorted(shared)}
                row[metric] = measure(ours, kind).value
                if way != NONE and NONE in of:
                    theirs = {"/".join(key): float(getattr(of[NONE][key], metric)) for key in sorted(shared)}
                    found_out = compare((way, ours), (NONE, theirs), metric, kind)
                    row |= {f"{metric}_difference": found_out.difference, f"{metric}_p": found_out.p}
                    row |= {f"{metric}_won": found_out.won, f"{metric}_lost": found_out.lost}
            row["prompt_tokens"] = sum(of[way][key].prompt_tokens for key in shared) / len(shared)
            found.append(row)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=40, help="holes of each repository")
    parser.add_argument("--adapter", action="append", help="an adapter or `base`; may be repeated [python-fim, base]")
    parser.add_argument("--way", action="append", help="may be repeated [none, served:300]")
    parser.add_argument("--out", type=Path, default=Path("context_quality.jsonl"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    adapters, ways = given.adapter or ["python-fim", "base"], given.way or [NONE, "served:300"]
    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    update_shipped_adapters(installation.settings, paths)
    asked = []
    for repository in given.repositories:
        items = load_repository(repository, SEED).first(given.count)
        asked.append(Asked(items, {way: strategy(way, items) for way in ways}))
    filled = asyncio.run(run(installation, asked, adapters, given.count, given.out))
    table = rows(filled, adapters, ways)
    if given.json:
        print(json.dumps(table))
        return
    print(file=sys.stderr)
    for row in table:
        print(
            "  ".join(f"{name} {value:.3f}" if isinstance(value, float) else str(value) for name, value in row.items())
        )


if __name__ == "__main__":
    main()
