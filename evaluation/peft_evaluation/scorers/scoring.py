"""Score each output from the samples, the answers and the test results.

Answers are run in ``verification``; the results of whole strategies are computed in ``report.builder``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from statistics import fmean

from peft_evaluation.generation import SampleResult
from peft_evaluation.report.schema import ReportedSample, Score
from peft_evaluation.sample import Sample, SampleSet
from peft_evaluation.sandbox.base import SandboxOutcome
from peft_evaluation.scorers.code_bleu.score import code_bleu
from peft_evaluation.scorers.metrics import METRICS, chrf, exact_match, pass_at_k, similarity, syntax
from peft_evaluation.verification import Verification, Verifications, verification_key
from peft_tuning.data.datasets.apps import ProblemTests
from peft_tuning.data.examples import FillExample


def score(items: SampleSet, answered: Iterable[SampleResult], runs: Verifications) -> tuple[ReportedSample, ...]:
    """Return every item with its scored answers, in the order of the items; answers to other items are ignored.

    An answer without results in ``runs`` gets no metrics that need tests.
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
            answers=tuple(_score(item, each, runs) for each in by_item[item.id]),
        )
        for item in items.items
    )


def scores(item: Sample, texts: tuple[str, ...]) -> Mapping[str, float]:
    """Return the metrics of one output that need no tests."""
    best = texts[0] if texts else ""
    if isinstance(item.example, FillExample):
        # White space matters in a hole, except at the end of the answer.
        exact = float(best.rstrip() == item.reference.rstrip())
        whole = item.example.prefix + best + item.example.suffix
        valid = syntax(whole) if item.example.language == "python" else {}
        return {"em@1": exact, **similarity(best, item.reference), **valid}
    if item.tests is not None or not item.reference:
        # There are many correct answers, so only tests can judge one.
        return syntax(best)
    by_code = code_bleu(best, item.reference) if item.example.language == "python" else {}
    return {**exact_match(texts, item.reference), **chrf(best, item.reference), **by_code, **syntax(best)}


def verification_scores(item: Sample, ran: Sequence[Verification]) -> Mapping[str, float]:
    """Return the metrics of one output that need tests, from the test results of its texts."""
    if not ran:
        return {}
    passed = [each.outcome is SandboxOutcome.PASSED for each in ran]
    found = dict(pass_at_k(passed))
    if isinstance(item.tests, ProblemTests):
        found |= {"tests": fmean(each.passed / max(each.of, 1) for each in ran), "strict": fmean(passed)}
    return found


def _score(item: Sample, answered: SampleResult, runs: Verifications) -> Score:
    given = answered.given
    ran = [runs[found] for text in given.texts if (found := verification_key(item.id, text)) in runs]
    return Score(
        strategy=answered.strategy,
        seed=answered.seed,
        texts=given.texts,
        scores={**verification_scores(item, ran), **scores(item, given.texts)},
        outcomes=tuple(f"{each.outcome.value}: {each.why}" if each.why else each.outcome.value for each in ran),
        examples=answered.examples,
        prompt_tokens=given.prompt_tokens,
        answer_tokens=given.answer_tokens,
        latency_ms=given.latency_ms,
    )


LIVE_METRICS = ("em@1", "chrf", "similarity", "syntax")
"""Metrics that are shown during a run: they are fast to compute and need no tests."""


class SampleMeans:
    """The scores of one strategy: for each metric and sample the mean over the strategy's seeds.

    Used for the report and for the display during a run.
    """

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, list[float]]] = {}

    def add(self, sample_id: str, scores: Mapping[str, float]) -> None:
        """Add the scores of one output; NaN is ignored."""
        for metric, value in scores.items():
            if not isnan(value):
                self._scores.setdefault(metric, {}).setdefault(sample_id, []).append(value)

    def values(self) -> dict[str, dict[str, float]]:
        """Return the means by metric (in the order of ``METRICS``), then by sample."""
        return {
            metric: {sample_id: fmean(numbers) for sample_id, numbers in self._scores[metric].items()}
            for metric in METRICS
            if metric in self._scores
        }

    def mean(self, metric: str) -> float:
        """Return the mean over all samples; raises KeyError for a metric without a score."""
        return fmean(map(fmean, self._scores[metric].values()))

    def __contains__(self, metric: str) -> bool:
        return metric in self._scores


class LiveScores:
    """The mean scores of each strategy so far, while samples are still being answered."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = {sample.id: sample for sample in samples.items}
        self._means: dict[str, SampleMeans] = {}

    def add(self, result: SampleResult) -> None:
        """Score one more result; results for unknown samples are ignored."""
        means = self._means.setdefault(result.strategy, SampleMeans())
        if (sample := self._samples.get(result.item)) is not None:
            found = scores(sample, result.given.texts)
            means.add(sample.id, {metric: found[metric] for metric in LIVE_METRICS if metric in found})

    def means(self, strategy: str) -> dict[str, float]:
        """Return the means of one strategy so far, by metric."""
        means = self._means.get(strategy, SampleMeans())
        return {metric: means.mean(metric) for metric in LIVE_METRICS if metric in means}
