"""Strategies: the solved examples and pieces of other files a sample is shown with, and the adapter that answers.

All else (samples, prompt format, budget, decoding, post-processing) is the same for all. In-context learning draws n
training examples by seed, the same for all samples; the study draws 1, 2 or 3 with five seeds (arXiv 2308.10462).
Retrieval shows the k most similar ones, most similar first. Context shows code of other files of the repository, chosen
as it is when serving; the sample's own file is never among the chunks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product

from peft_core.api_types import ContextChunk
from peft_core.code.document import lines_of
from peft_core.code.files import list_workspace
from peft_core.code.imports import RelatedFiles
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.context.index import Index
from peft_daemon.context.selection import CHARACTERS_PER_TOKEN, SelectionLimits, SelectionQuery, select_chunks
from peft_evaluation.retrieval import Retriever, get_retriever
from peft_evaluation.sample import Sample, SampleSet
from peft_tuning.data.examples import Example, FillExample, IntentExample

NO_SEED = 0
"""Of strategies that draw nothing."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way, with all its parameters, applied to one set of items."""

    id: str
    adapter: str | None = None
    """Name or digest in the registry."""
    seeds: tuple[int, ...] = (NO_SEED,)
    """The items are answered once with each."""
    shown: Mapping[int, Sequence[tuple[Example, ...]]] = field(default_factory=dict)
    """By seed, then by position of the item: the examples before the question, in the order they are shown."""
    contexts: tuple[tuple[ContextChunk, ...], ...] | None = None
    """By position of the item: pieces of other files, in place of those its example has. None: those."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """For the record."""

    def examples(self, seed: int, index: int) -> tuple[Example, ...]:
        """Those shown with one item."""
        return self.shown[seed][index] if seed in self.shown else ()

    def context(self, index: int) -> tuple[ContextChunk, ...] | None:
        """Pieces of other files for one item; None: those its example has."""
        return None if self.contexts is None else self.contexts[index]


def questions(items: Sequence[Sample]) -> list[str]:
    """What is compared with the pool."""
    return [query(item.example) for item in items]


def query(example: Example) -> str:
    """The text that stands for an example when likeness counts: a sentence, or the lines around a hole."""
    if isinstance(example, IntentExample):
        return example.intent
    before, after = lines_of(example.prefix)[-8:], lines_of(example.suffix)[:4]
    return "\n".join(line.removesuffix("\n") for line in (*before, *after))


def zero_shot() -> Strategy:
    """The base model as it is served without any adapter."""
    return Strategy(id="zero-shot")


SEEDS = (42, 777, 5432, 55555, 97)
"""The study's."""
EXAMPLES = 3


def in_context(items: SampleSet, n: int = EXAMPLES, seeds: Sequence[int] = SEEDS) -> Strategy:
    """``n`` examples per prompt; raises InvalidInput when the pool is smaller, or n is not positive."""
    if n < 1:
        raise InvalidInput(f"{n} examples in the prompt", fix="Use `--strategy zero-shot` for none")
    if n > len(items.pool):
        raise InvalidInput(
            f"{n} examples are to be shown, and {items.name} has {len(items.pool)} training examples",
            fix="Lower `--examples`, or use a data set with a training part",
        )
    drawn = {seed: tuple(random.Random(seed).sample(items.pool, n)) for seed in seeds}  # noqa: S311  (a draw of examples)
    return Strategy(
        id=f"icl-{n}",
        seeds=tuple(seeds),
        shown={seed: [examples] * len(items.items) for seed, examples in drawn.items()},
        settings={"examples": str(n)},
    )


NEIGHBOURS = 3


def retrieval(items: SampleSet, retriever: Retriever, k: int = NEIGHBOURS) -> Strategy:
    """``k`` neighbours per prompt; raises InvalidInput when the pool is smaller, or k is not positive."""
    if not 1 <= k <= len(items.pool):
        raise InvalidInput(
            f"{k} neighbours are to be shown, and {items.name} has {len(items.pool)} training examples",
            fix="Give `--neighbours` between 1 and that, or use a data set with a training part",
        )
    found = retriever.neighbours([query(example) for example in items.pool], questions(items.items), k)
    return Strategy(
        id=f"rag-{retriever.id}-{k}",
        shown={NO_SEED: [tuple(items.pool[index] for index in each) for each in found]},
        settings={"retriever": retriever.version, "neighbours": str(k)},
    )


CONTEXT_TOKENS = 300


class ChunkMixture(StrEnum):
    """Which kinds of chunks there are."""

    SERVED = "served"
    """As completions are shown them."""
    SIGNATURES = "signatures"
    PASSAGES = "passages"


def alone(items: SampleSet) -> Strategy:
    """The hole in its file, without the chunks that its example has."""
    return Strategy(id="alone", contexts=((),) * len(items.items))


def with_context(
    items: SampleSet, tokens: int = CONTEXT_TOKENS, mixture: ChunkMixture = ChunkMixture.SERVED
) -> Strategy:
    """Chunks of at most ``tokens`` tokens; raises InvalidInput for items that are no holes in a repository."""
    if items.root is None:
        raise InvalidInput(
            f"{items.name} has no other files", why="`context` shows code of a repository", fix="Give --repo FOLDER"
        )
    index = Index(items.root)
    for path in index.set_listing(list_workspace(items.root)):
        index.update(path)
    related, limits = RelatedFiles(index.paths, index.text), chunk_limits(tokens, mixture)
    contexts = tuple(
        select_chunks(index, related, SelectionQuery(example.path, example.prefix, example.suffix), (), limits)
        if isinstance(example := item.example, FillExample)
        else ()
        for item in items.items
    )
    name = "context" if mixture is ChunkMixture.SERVED else f"context-{mixture}"
    return Strategy(
        id=f"{name}-{tokens}",
        contexts=contexts,
        settings={
            "context": f"{mixture}, {tokens} tokens",
            "index": f"{index.files} files, {index.passages} passages",
            "items with chunks": str(sum(map(bool, contexts))),
        },
    )


def chunk_limits(tokens: int, mixture: ChunkMixture) -> SelectionLimits:
    """Room for each kind of chunk; nobody edits while an evaluation runs."""
    room = int(tokens * CHARACTERS_PER_TOKEN)
    if mixture is ChunkMixture.SIGNATURES:
        return SelectionLimits(signatures=room, edits=0, passages=0)
    if mixture is ChunkMixture.PASSAGES:
        return SelectionLimits(signatures=0, edits=0, passages=room)
    return SelectionLimits.of_tokens(tokens)


def adapted(strategy: Strategy, manifest: Manifest) -> Strategy:
    """``strategy`` answered by an adapter, at the scale of its manifest."""
    name = manifest.name
    return replace(
        strategy,
        id=f"adapter:{name}" if strategy.id == "zero-shot" else f"adapter+{strategy.id}:{name}",
        adapter=manifest.digest,
        settings={
            **strategy.settings,
            "adapter": f"{name} {manifest.digest[:12]}",
            "method": manifest.method,
            "rank": str(manifest.rank),
            "scale": f"{manifest.scale:g}",
            "trained on": manifest.data_digest[:12] or "unknown",
        },
    )


STRATEGY_KINDS = "zero-shot, icl, rag, alone, context, adapter:NAME, and all of them with one, as adapter+rag:NAME"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Parameters that apply to all strategies that have them."""

    examples: tuple[int, ...] = (EXAMPLES,)
    neighbours: tuple[int, ...] = (NEIGHBOURS,)
    retrievers: tuple[str, ...] = ("bm25",)
    seeds: tuple[int, ...] = SEEDS
    context_tokens: tuple[int, ...] = (CONTEXT_TOKENS,)
    mixtures: tuple[ChunkMixture, ...] = (ChunkMixture.SERVED,)


def choose_strategies(
    asked: Sequence[str], sweep: Sweep, items: SampleSet, find_adapter: Callable[[str], Manifest]
) -> tuple[Strategy, ...]:
    """All strategies that were asked for, in that order.

    Raises InvalidInput for an unknown or repeated one, and what ``find_adapter`` raises for an adapter.
    """
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise InvalidInput(
            "a seed is given twice", why="it would draw the same examples", fix="Give each `--seed` once"
        )
    found: list[Strategy] = []
    for text in asked:
        kind, _, name = text.partition(":")
        wants_adapter = kind.split("+")[0] == "adapter"
        if wants_adapter != bool(name):
            raise _unknown(text)
        prompting = (kind.removeprefix("adapter").removeprefix("+") or "zero-shot") if wants_adapter else kind
        manifest = find_adapter(name) if name else None
        for strategy in _prompted(prompting, sweep, items, text):
            found.append(adapted(strategy, manifest) if manifest else strategy)
    ids = [strategy.id for strategy in found]
    if repeated := next((each for each in ids if ids.count(each) > 1), None):
        raise InvalidInput(f"the strategy {repeated} is asked for twice", fix="Give each once")
    return tuple(found)


def _prompted(kind: str, sweep: Sweep, items: SampleSet, text: str) -> Iterator[Strategy]:
    if kind == "zero-shot":
        yield zero_shot()
    elif kind == "icl":
        yield from (in_context(items, n, sweep.seeds) for n in sweep.examples)
    elif kind == "rag":
        for retriever, k in product(sweep.retrievers, sweep.neighbours):
            yield retrieval(items, get_retriever(retriever), k)
    elif kind == "alone":
        yield alone(items)
    elif kind == "context":
        for mixture, tokens in product(sweep.mixtures, sweep.context_tokens):
            yield with_context(items, tokens, mixture)
    else:
        raise _unknown(text)


def _unknown(text: str) -> InvalidInput:
    return InvalidInput(f"there is no strategy '{text}'", why=f"there are {STRATEGY_KINDS}")
