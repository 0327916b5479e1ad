"""The second step: what each answer is worth. A pure function of items and answers.

Does not cover running answers, which needs a sandbox, nor what strategies are worth together: see ``assembling``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from peft_evaluation.generating import Answered
from peft_evaluation.items import Item, ItemSet
from peft_evaluation.metrics.chrf import chrf
from peft_evaluation.metrics.exact_match import exact_match
from peft_evaluation.metrics.similarity import similarity
from peft_evaluation.metrics.syntax import syntax
from peft_evaluation.results import Answer, ItemResult
from peft_tuning.examples import FillExample


def score(items: ItemSet, answered: Iterable[Answered]) -> tuple[ItemResult, ...]:
    """Every item with its scored answers, in the order of the items; answers to other items are left out."""
    by_item: dict[str, list[Answered]] = defaultdict(list)
    for each in answered:
        by_item[each.item].append(each)
    return tuple(
        ItemResult(
            id=item.id,
            group=item.group,
            question=item.question,
            reference=item.reference,
            answers=tuple(_answer(item, each) for each in by_item[item.id]),
        )
        for item in items.items
    )


def scores(item: Item, texts: tuple[str, ...]) -> Mapping[str, float]:
    """All figures of one answer that need no running, by metric."""
    best = texts[0] if texts else ""
    if isinstance(item.example, FillExample):
        # White space is part of what is filled in, but for what follows the last character.
        exact = float(best.rstrip() == item.reference.rstrip())
        whole = item.example.prefix + best + item.example.suffix
        valid = syntax(whole) if item.example.language == "python" else {}
        return {"em@1": exact, **similarity(best, item.reference), **valid}
    if item.tests is not None or not item.reference:
        # One of many right answers: only running it tells.
        return syntax(best)
    return {**exact_match(texts, item.reference), **chrf(best, item.reference), **syntax(best)}


def _answer(item: Item, answered: Answered) -> Answer:
    given = answered.given
    return Answer(
        strategy=answered.strategy,
        seed=answered.seed,
        texts=given.texts,
        scores=dict(scores(item, given.texts)),
        examples=answered.examples,
        prompt_tokens=given.prompt_tokens,
        answer_tokens=given.answer_tokens,
        latency_ms=given.latency_ms,
    )
