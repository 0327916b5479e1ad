"""Strategies: which solved examples and chunks of other files a sample is shown with, and which adapter answers.

Everything else (samples, prompt format, budget, decoding, post-processing) is the same for all strategies. In-context
learning draws n training examples by seed, the same for all samples; arXiv 2308.10462 draws 1, 2 or 3 with five seeds.
Retrieval shows the k most similar examples, most similar first. Context shows code of other files of the repository,
chosen as for completions, and never from the sample's own file.
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
from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.context.selection import CHARACTERS_PER_TOKEN, SelectionLimits
from peft_evaluation.retrieval import Retriever, get_retriever
from peft_evaluation.sample import Sample, SampleSet
from peft_tuning.data.examples import CompletionExample, FillExample, IntentExample
from peft_tuning.data.repository.chunks import CONTEXT_TOKENS, ChunkSelector

NO_SEED = 0
"""The seed of strategies that draw nothing at random."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way of answering, with all its parameters, applied to one set of items."""

    id: str
    adapter: str | None = None
    """Name or digest in the registry."""
    seeds: tuple[int, ...] = (NO_SEED,)
    """All items are answered once with each seed."""
    shown: Mapping[int, Sequence[tuple[CompletionExample, ...]]] = field(default_factory=dict)
    """By seed, then by position of the item: the examples before the question, in this order."""
    contexts: tuple[tuple[ContextChunk, ...], ...] | None = None
    """By position of the item: chunks of other files in place of the example's own; None: the example's own."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The parameters as the report shows them."""

    def examples(self, seed: int, index: int) -> tuple[CompletionExample, ...]:
        """Return the examples that are shown with one item."""
        return self.shown[seed][index] if seed in self.shown else ()

    def context(self, index: int) -> tuple[ContextChunk, ...] | None:
        """Return the chunks of other files for one item; None: the example's own."""
        return None if self.contexts is None else self.contexts[index]


def questions(items: Sequence[Sample]) -> list[str]:
    """Return the texts of the items that retrievers compare with the pool."""
    return [query(item.example) for item in items]


def query(example: CompletionExample) -> str:
    """Return the text of an example that retrievers compare: its sentence, or the lines around its hole."""
    if isinstance(example, IntentExample):
        return example.intent
    before, after = lines_of(example.prefix)[-8:], lines_of(example.suffix)[:4]
    return "\n".join(line.removesuffix("\n") for line in (*before, *after))


def zero_shot() -> Strategy:
    """Return the strategy of the base model alone."""
    return Strategy(id="zero-shot")


SEEDS = (42, 777, 5432, 55555, 97)
"""The five seeds of arXiv 2308.10462."""
EXAMPLES = 3


def in_context(items: SampleSet, n: int = EXAMPLES, seeds: Sequence[int] = SEEDS) -> Strategy:
    """Return the strategy with ``n`` random examples per prompt.

    Raises InvalidInput unless 1 <= n <= pool size.
    """
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
    """Return the strategy with the ``k`` nearest examples; raises InvalidInput unless 1 <= k <= pool size."""
    if not 1 <= k <= len(items.pool):
        raise InvalidInput(
            f"{k} neighbours are to be shown, and {items.name} has {len(items.pool)} training examples",
            fix="Give `--neighbours` between 1 and that number, or use a data set with a training part",
        )
    found = retriever.neighbours([query(example) for example in items.pool], questions(items.items), k)
    return Strategy(
        id=f"rag-{retriever.id}-{k}",
        shown={NO_SEED: [tuple(items.pool[index] for index in each) for each in found]},
        settings={"retriever": retriever.version, "neighbours": str(k)},
    )


class ChunkMixture(StrEnum):
    """Which kinds of chunks are shown."""

    SERVED = "served"
    """The same mixture as for completions."""
    SIGNATURES = "signatures"
    PASSAGES = "passages"


def alone(items: SampleSet) -> Strategy:
    """Return the strategy that shows the hole in its file without the example's own chunks."""
    return Strategy(id="alone", contexts=((),) * len(items.items))


def with_context(
    items: SampleSet, tokens: int = CONTEXT_TOKENS, mixture: ChunkMixture = ChunkMixture.SERVED
) -> Strategy:
    """Return the strategy with at most ``tokens`` tokens of chunks.

    Raises InvalidInput without a repository.
    """
    if items.root is None:
        raise InvalidInput(
            f"{items.name} has no other files", why="`context` shows code of a repository", fix="Give --repo FOLDER"
        )
    selector, limits = ChunkSelector(items.root, list_workspace(items.root)), chunk_limits(tokens, mixture)
    examples = (item.example for item in items.items)
    contexts = tuple(selector.select(each, limits) if isinstance(each, FillExample) else () for each in examples)
    name = "context" if mixture is ChunkMixture.SERVED else f"context-{mixture}"
    return Strategy(
        id=f"{name}-{tokens}",
        contexts=contexts,
        settings={
            "context": f"{mixture}, {tokens} tokens",
            "index": f"{selector.index.files} files, {selector.index.passages} passages",
            "items with chunks": str(sum(map(bool, contexts))),
        },
    )


def chunk_limits(tokens: int, mixture: ChunkMixture) -> SelectionLimits:
    """Return the limits for each kind of chunk; there are no recent edits in an evaluation."""
    room = int(tokens * CHARACTERS_PER_TOKEN)
    if mixture is ChunkMixture.SIGNATURES:
        return SelectionLimits(signatures=room, edits=0, passages=0)
    if mixture is ChunkMixture.PASSAGES:
        return SelectionLimits(signatures=0, edits=0, passages=room)
    return SelectionLimits.of_tokens(tokens)


def adapted(strategy: Strategy, manifest: Manifest) -> Strategy:
    """Return ``strategy`` answered by an adapter, at the scale of its manifest."""
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
    """Values of the strategies' parameters; a strategy is run with each value of its own parameters."""

    examples: tuple[int, ...] = (EXAMPLES,)
    neighbours: tuple[int, ...] = (NEIGHBOURS,)
    retrievers: tuple[str, ...] = ("bm25",)
    seeds: tuple[int, ...] = SEEDS
    context_tokens: tuple[int, ...] = (CONTEXT_TOKENS,)
    mixtures: tuple[ChunkMixture, ...] = (ChunkMixture.SERVED,)


def choose_strategies(
    asked: Sequence[str], sweep: Sweep, items: SampleSet, find_adapter: Callable[[str], Manifest]
) -> tuple[Strategy, ...]:
    """Return the strategies named in ``asked``, in that order, one for each combination of their parameters.

    Raises InvalidInput for an unknown or repeated strategy, and what ``find_adapter`` raises for an adapter.
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
        raise InvalidInput(f"the strategy {repeated} is given twice", fix="Give each once")
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
