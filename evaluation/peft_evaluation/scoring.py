"""The last step: what each answer is worth. A pure function of items, answers and what came of running them.

Does not cover running answers (``verifying``), nor what strategies are worth together (``assembling``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from peft_evaluation.generating import Answered
from peft_evaluation.items import Item, ItemSet
from peft_evaluation.metrics.chrf import chrf
from peft_evaluation.metrics.code_bleu.parts import code_bleu
from peft_evaluation.metrics.exact_match import exact_match
from peft_evaluation.metrics.pass_at_k import pass_at_k
from peft_evaluation.metrics.similarity import similarity
from peft_evaluation.metrics.syntax import syntax
from peft_evaluation.results import Answer, ItemResult
from peft_evaluation.sandbox.base import Outcome
from peft_evaluation.verifying import Ran, Runs, key
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.examples import FillExample


def score(items: ItemSet, answered: Iterable[Answered], runs: Runs) -> tuple[ItemResult, ...]:
    """Every item with its scored answers, in the order of the items; answers to other items are left out.

    An answer that is not in ``runs`` has no score that needs running.
    """
    by_item: dict[str, list[Answered]] = defaultdict(list)
    for each in answered:
        by_item[each.item].append(each)
    return tuple(
        ItemResult(
            id=item.id,
            group=item.group,
            question=item.question,
            reference=item.reference,
            answers=tuple(_answer(item, each, runs) for each in by_item[item.id]),
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
    by_code = code_bleu(best, item.reference) if item.example.language == "python" else {}
    return {**exact_match(texts, item.reference), **chrf(best, item.reference), **by_code, **syntax(best)}


def ran_scores(item: Item, ran: Sequence[Ran]) -> Mapping[str, float]:
    """All figures that need running, of all texts of one answer, by metric."""
    if not ran:
        return {}
    passed = [each.outcome is Outcome.PASSED for each in ran]
    found = dict(pass_at_k(passed))
    if isinstance(item.tests, ProblemTests):
        found |= {"tests": fmean(each.passed / max(each.of, 1) for each in ran), "strict": fmean(passed)}
    return found


def _answer(item: Item, answered: Answered, runs: Runs) -> Answer:
    given = answered.given
    ran = [runs[found] for text in given.texts if (found := key(item.id, text)) in runs]
    return Answer(
        strategy=answered.strategy,
        seed=answered.seed,
        texts=given.texts,
        scores={**ran_scores(item, ran), **scores(item, given.texts)},
        outcomes=tuple(f"{each.outcome.value}: {each.why}" if each.why else each.outcome.value for each in ran),
        examples=answered.examples,
        prompt_tokens=given.prompt_tokens,
        answer_tokens=given.answer_tokens,
        latency_ms=given.latency_ms,
    )
