"""Compute the figures of policies from their trials, and compare them. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from peft_evaluation.edit_benchmark.results import EditFigures, EditTrial, ScenarioFacts
from peft_evaluation.edit_benchmark.scenarios import ScenarioKind
from peft_evaluation.report.schema import Comparison, Measure
from peft_evaluation.scorers.metrics import MetricKind
from peft_evaluation.stats import adjust_p_values, compare, measure
from peft_evaluation.typing_benchmark.figures import percentile

GROUPS: Mapping[str, Callable[[ScenarioFacts], str | None]] = {
    "distance": lambda facts: facts.distance,
    "kind": lambda facts: facts.kind,
    "language": lambda facts: facts.language,
    "repository": lambda facts: facts.repository,
}
"""What figures are given by; a scenario without a value is in no group."""


@dataclass(frozen=True)
class EditFigure:
    """One figure: of which trials, and what it is of each."""

    label: str
    kind: MetricKind
    counts: Callable[[EditTrial, ScenarioFacts], bool]
    value: Callable[[EditTrial], float]
    per_hundred: bool = False


def _has_answer(trial: EditTrial, facts: ScenarioFacts) -> bool:
    return facts.kind is ScenarioKind.ANSWER


def _has_none(trial: EditTrial, facts: ScenarioFacts) -> bool:
    return facts.kind is not ScenarioKind.ANSWER


def _is_shown(trial: EditTrial, facts: ScenarioFacts) -> bool:
    return trial.scores.shown


FIGURES: Mapping[str, EditFigure] = {
    "exact": EditFigure("exact", MetricKind.RATE, _has_answer, lambda trial: float(trial.scores.exact)),
    "shown": EditFigure("shown", MetricKind.RATE, _has_answer, lambda trial: float(trial.scores.shown)),
    "exact_shown": EditFigure(
        "exact if shown",
        MetricKind.RATE,
        lambda trial, facts: _has_answer(trial, facts) and trial.scores.shown,
        lambda trial: float(trial.scores.exact),
    ),
    "of_commit": EditFigure("of the commit", MetricKind.RATE, _has_answer, lambda trial: float(trial.scores.of_commit)),
    "of_commit_shown": EditFigure(
        "of the commit if shown",
        MetricKind.RATE,
        lambda trial, facts: _has_answer(trial, facts) and trial.scores.shown,
        lambda trial: float(trial.scores.of_commit),
    ),
    "similarity": EditFigure("edit similarity", MetricKind.MEAN, _has_answer, lambda trial: trial.scores.similarity),
    "quiet": EditFigure("quiet rate", MetricKind.RATE, _has_none, lambda trial: float(trial.scores.quiet or False)),
    "false": EditFigure(
        "false per 100 shown",
        MetricKind.RATE,
        _is_shown,
        lambda trial: float(trial.scores.false),
        per_hundred=True,
    ),
    "reversal": EditFigure("reversal ratio", MetricKind.MEAN, _is_shown, lambda trial: trial.scores.reversal),
}
"""By the name that ``edits.json`` has for it, in the order in which they are shown."""


def figures_of(what: str, trials: Sequence[EditTrial], scenarios: Mapping[str, ScenarioFacts]) -> EditFigures:
    """Return one policy's figures over its trials; ``scenarios`` has the facts by id."""
    groups: dict[str, dict[str, dict[str, Measure]]] = {}
    for name, of in GROUPS.items():
        members: dict[str, list[EditTrial]] = {}
        for trial in trials:
            if (value := of(scenarios[trial.scenario])) is not None:
                members.setdefault(str(value), []).append(trial)
        groups[name] = {value: _measures(some, scenarios) for value, some in sorted(members.items())}
    asked = [trial.latency_ms for trial in trials if trial.latency_ms and not trial.repeated]
    return EditFigures(
        what=what,
        trials=len(trials),
        figures=_measures(trials, scenarios),
        groups=groups,
        latency_p50_ms=percentile(asked, 50) if asked else None,
        latency_p95_ms=percentile(asked, 95) if asked else None,
        silences=dict(sorted(Counter(trial.silence for trial in trials if trial.silence).items())),
    )


def compare_policies(
    names: Sequence[str], trials: Sequence[EditTrial], scenarios: Mapping[str, ScenarioFacts]
) -> tuple[Comparison, ...]:
    """Compare the first policy with each other one, scenario by scenario; p is adjusted for their number."""
    found: list[Comparison] = []
    for figure in ("exact", "of_commit", "quiet", "similarity"):
        values = {name: _values(figure, (t for t in trials if t.policy == name), scenarios) for name in names}
        others = [name for name in names[1:] if values[name].keys() & values[names[0]].keys()]
        first = (names[0], values[names[0]])
        found += adjust_p_values(
            [compare(first, (name, values[name]), figure, FIGURES[figure].kind) for name in others]
        )
    return tuple(found)


def places_found(scenarios: Iterable[ScenarioFacts]) -> dict[str, Measure]:
    """Return the share of answers whose place is looked at, by distance and of all."""
    values: dict[str, dict[str, float]] = {}
    for each in scenarios:
        if each.place_found is not None:
            for name in ("all", str(each.distance)):
                values.setdefault(name, {})[each.id] = float(each.place_found)
    return {name: measure(each, MetricKind.RATE) for name, each in values.items()}


def _measures(trials: Sequence[EditTrial], scenarios: Mapping[str, ScenarioFacts]) -> dict[str, Measure]:
    found = {name: _values(name, trials, scenarios) for name in FIGURES}
    return {name: measure(values, FIGURES[name].kind) for name, values in found.items() if values}


def _values(name: str, trials: Iterable[EditTrial], scenarios: Mapping[str, ScenarioFacts]) -> dict[str, float]:
    """Return a figure's value in each scenario that it counts in."""
    figure = FIGURES[name]
    return {trial.scenario: figure.value(trial) for trial in trials if figure.counts(trial, scenarios[trial.scenario])}
