"""From what is typed to strategies: ``zero-shot``, ``icl``, ``rag``, ``context``, ``adapter:NAME``, ….

Numbers of examples and neighbours, and retrievers, are given once for all; each combination is a strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_evaluation.items import ItemSet
from peft_evaluation.retrieval import catalogue
from peft_evaluation.strategies.adapter import adapted
from peft_evaluation.strategies.base import Strategy
from peft_evaluation.strategies.context import TOKENS, Mixture, alone, with_context
from peft_evaluation.strategies.icl import EXAMPLES, SEEDS, in_context
from peft_evaluation.strategies.rag import NEIGHBOURS, retrieval
from peft_evaluation.strategies.zero_shot import zero_shot

KINDS = "zero-shot, icl, rag, alone, context, adapter:NAME, and all of them with one, as adapter+rag:NAME"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Parameters that apply to all strategies that have them."""

    examples: tuple[int, ...] = (EXAMPLES,)
    neighbours: tuple[int, ...] = (NEIGHBOURS,)
    retrievers: tuple[str, ...] = ("bm25",)
    seeds: tuple[int, ...] = SEEDS
    context_tokens: tuple[int, ...] = (TOKENS,)
    mixtures: tuple[Mixture, ...] = (Mixture.SERVED,)


def choose(
    asked: Sequence[str], sweep: Sweep, items: ItemSet, find_adapter: Callable[[str], Manifest]
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


def _prompted(kind: str, sweep: Sweep, items: ItemSet, text: str) -> Iterator[Strategy]:
    if kind == "zero-shot":
        yield zero_shot()
    elif kind == "icl":
        yield from (in_context(items, n, sweep.seeds) for n in sweep.examples)
    elif kind == "rag":
        for retriever, k in product(sweep.retrievers, sweep.neighbours):
            yield retrieval(items, catalogue.get(retriever), k)
    elif kind == "alone":
        yield alone(items)
    elif kind == "context":
        for mixture, tokens in product(sweep.mixtures, sweep.context_tokens):
            yield with_context(items, tokens, mixture)
    else:
        raise _unknown(text)


def _unknown(text: str) -> InvalidInput:
    return InvalidInput(f"there is no strategy '{text}'", why=f"there are {KINDS}")
