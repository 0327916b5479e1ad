"""Which next edits to show: a logistic regression on what is known of each, from a report of `bench edits`.

    python benchmarks/next_edit_gate.py edits.json [--policy ours-all]

It is fitted on all repositories but one and judged on that one, for each of them. Prints the weights of a fit on all,
and for thresholds of the predicted probability which share of answers and of silence is kept.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peft_evaluation.edit_benchmark.report import EDITS
from peft_evaluation.edit_benchmark.results import EditBenchReport, EditTrial
from peft_evaluation.edit_benchmark.scenarios import ScenarioKind

RIDGE = 1.0
"""Of standardized features; the constant is free."""
STEPS = 50
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FEATURES = ("total", "lines", "distant")
"""As ``GateWeights`` of the daemon names them."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Suggestion:
    """What was suggested once, and whether it was right."""

    repository: str
    has_answer: bool
    right: bool
    features: tuple[float, ...]


@dataclass(frozen=True)
class Model:
    """A logistic regression on standardized features."""

    means: Array
    scales: Array
    weights: Array
    """The constant is the last."""

    def probability(self, features: Array) -> Array:
        """Return how likely each suggestion is right."""
        scores = (features - self.means) / self.scales @ self.weights[:-1] + self.weights[-1]
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -30, 30))), float)


def features_of(trial: EditTrial) -> tuple[float, ...]:
    """Return what is known of a suggestion before it is shown."""
    return ((trial.mean_log_probability or 0.0) * trial.tokens, float(trial.size or 0), float(trial.distant or False))


def suggestions(report: EditBenchReport, policy: str, *, written: bool) -> list[Suggestion]:
    """Return what a policy suggested: what a model has written, or what needed none.

    Text at the cursor in a half-typed word is neither right nor wrong.
    """
    facts = {each.id: each for each in report.scenarios}
    return [
        Suggestion(
            facts[trial.scenario].repository,
            facts[trial.scenario].kind is ScenarioKind.ANSWER,
            trial.scores.of_commit,
            features_of(trial),
        )
        for trial in report.trials
        if trial.policy == policy and trial.scores.shown and not trial.scores.quiet and bool(trial.tokens) is written
    ]


def fitted(features: Array, right: Array) -> Model:
    """Fit by Newton's method with a ridge."""
    means, scales = features.mean(0), features.std(0)
    scales = np.where(scales > 1e-9, scales, 1.0)
    rows = np.column_stack(((features - means) / scales, np.ones(len(features))))
    penalty = np.diag([*[RIDGE] * features.shape[1], 1e-6])
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        found = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        gradient = rows.T @ (found - right) + penalty @ weights
        curvature = (rows * (found * (1 - found))[:, None]).T @ rows + penalty
        weights -= np.linalg.solve(curvature, gradient)
    return Model(means, scales, weights)


def held_out(found: Sequence[Suggestion]) -> Array:
    """Return for each suggestion how likely it is right, by a fit without its repository."""
    features, right = arrays(found)
    repositories = np.array([each.repository for each in found])
    predicted = np.zeros(len(found))
    for name in np.unique(repositories):
        own = repositories == name
        predicted[own] = fitted(features[~own], right[~own]).probability(features[own])
    return predicted


def arrays(found: Sequence[Suggestion]) -> tuple[Array, Array]:
    """Return features, and whether each is right."""
    return np.array([each.features for each in found]), np.array([float(each.right) for each in found])


def area(predicted: Array, right: Array) -> float:
    """Return the chance that a right suggestion is predicted likelier than a wrong one."""
    good, bad = predicted[right > 0], predicted[right == 0]
    if not len(good) or not len(bad):
        return math.nan
    return float((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())


def main() -> None:
    """Print weights and what thresholds keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="edits.json, or the folder of a run")
    parser.add_argument("--policy", default="ours-all")
    options = parser.parse_args()
    report = EDITS.read(options.report)
    known = suggestions(report, options.policy, written=False)
    print(f"{len(known)} suggestions of {options.policy} without a model, {sum(each.right for each in known)} right")
    found = suggestions(report, options.policy, written=True)
    if len({each.repository for each in found}) < 2 or len({each.right for each in found}) < 2:
        parser.error(
            f"{options.policy} has {len(found)} suggestions: there have to be right and wrong ones of two clones"
        )
    features, right = arrays(found)
    model, predicted = fitted(features, right), held_out(found)
    print(f"{len(found)} suggestions of {options.policy} by a model, {int(right.sum())} right")
    print(f"right before wrong, each repository left out in turn: {area(predicted, right):.3f}")
    print("\nweights of a fit on all repositories:")
    for name, weight, scale in zip(FEATURES, model.weights[:-1], model.scales, strict=True):
        print(f"  {weight / scale:+8.3f}  {name}")
    print(f"  {model.weights[-1] - (model.weights[:-1] * model.means / model.scales).sum():+8.3f}  bias")
    answers = sum(each.kind is ScenarioKind.ANSWER for each in report.scenarios)
    silences = len(report.scenarios) - answers
    has_answer = np.array([each.has_answer for each in found])
    print("\nthreshold  shown  right %  quiet %  false per 100 shown")
    for threshold in THRESHOLDS:
        kept = predicted >= threshold
        shown, good = int(kept.sum()), int((kept & (right > 0)).sum())
        quiet = 1 - (kept & ~has_answer).sum() / silences
        false = f"{100 * (shown - good) / shown:.0f}" if shown else "-"
        print(f"{threshold:9.2f}  {shown:5d}  {100 * good / answers:7.1f}  {100 * quiet:7.1f}  {false:>4}")


if __name__ == "__main__":
    main()
