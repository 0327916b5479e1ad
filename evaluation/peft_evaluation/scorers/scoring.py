"""The last step: what each answer is worth. A pure function of items, answers and what came of running them.

Does not cover running answers (``verifying``), nor what strategies are worth together (``assembling``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from peft_evaluation.generation import SampleResult
from peft_evaluation.report.schema import Answer, ReportedSample
from peft_evaluation.sample import Sample, SampleSet
from peft_evaluation.sandbox.base import SandboxOutcome
from peft_evaluation.scorers.code_bleu.score import code_bleu
from peft_evaluation.scorers.metrics import chrf, exact_match, pass_at_k, similarity, syntax
from peft_evaluation.verification import Verification, Verifications, verification_key
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.examples import FillExample


def score(items: SampleSet, answered: Iterable[SampleResult], runs: Verifications) -> tuple[ReportedSample, ...]:
    """Every item with its scored answers, in the order of the items; answers to other items are left out.

    An answer that is not in ``runs`` has no score that needs running.
    """
    by_item: dict[str, list[SampleResult]] = defaultdict(list)
    for each in answered:
        by_item[each.item].append(each)
    return tuple(
        ReportedSample(
            id=item.id,
            group=item.group,
            question=item.question,
            reference=item.reference,
            answers=tuple(_answer(item, each, runs) for each in by_item[item.id]),
        )
        for item in items.items
    )


def scores(item: Sample, texts: tuple[str, ...]) -> Mapping[str, float]:
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


def ran_scores(item: Sample, ran: Sequence[Verification]) -> Mapping[str, float]:
    """All figures that need running, of all texts of one answer, by metric."""
    if not ran:
        return {}
    passed = [each.outcome is SandboxOutcome.PASSED for each in ran]
    found = dict(pass_at_k(passed))
    if isinstance(item.tests, ProblemTests):
        found |= {"tests": fmean(each.passed / max(each.of, 1) for each in ran), "strict": fmean(passed)}
    return found


def _answer(item: Sample, answered: SampleResult, runs: Verifications) -> Answer:
    given = answered.given
    ran = [runs[found] for text in given.texts if (found := verification_key(item.id, text)) in runs]
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


SHOWN = ("em@1", "chrf", "similarity", "syntax")
"""Of what needs no running."""


class Tally:
    """Means over the answers there are; the report's may differ, since it weighs all items alike."""

    def __init__(self, items: SampleSet) -> None:
        self._items = {item.id: item for item in items.items}
        self._sums: dict[str, dict[str, float]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, answered: SampleResult) -> Mapping[str, float]:
        """Count one more; the means of its strategy by metric. Answers to other items count nothing."""
        sums = self._sums.setdefault(answered.strategy, {})
        counts = self._counts.setdefault(answered.strategy, {})
        if (item := self._items.get(answered.item)) is not None:
            for metric, value in scores(item, answered.given.texts).items():
                if metric in SHOWN:
                    sums[metric] = sums.get(metric, 0.0) + value
                    counts[metric] = counts.get(metric, 0) + 1
        return {metric: sums[metric] / counts[metric] for metric in SHOWN if metric in sums}
