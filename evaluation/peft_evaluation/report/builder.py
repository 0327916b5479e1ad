"""Make a report of scored samples, and compare strategies of one report or of two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import fmean

import numpy as np

from peft_core.errors import InvalidInput
from peft_daemon.adapters.manifest import Manifest
from peft_evaluation.generation import SampleResult
from peft_evaluation.journal import EvaluationIdentity
from peft_evaluation.report.schema import (
    Comparison,
    Costs,
    DataFacts,
    Measure,
    Report,
    ReportedSample,
    StrategyResult,
    this_machine,
)
from peft_evaluation.sample import RepositoryTests, SampleSet, groups
from peft_evaluation.scorers.code_bleu.score import corpus_code_bleu
from peft_evaluation.scorers.metrics import CODE_BLEU_OF_ALL, METRICS, WHOLES
from peft_evaluation.scorers.scoring import SampleMeans
from peft_evaluation.stats import SampleValues, adjust_p_values, compare, measure

PACKAGES = ("peft-daemon", "torch", "transformers", "sacrebleu", "tree-sitter-python", "bm25s", "scipy")


def assemble(
    identity: EvaluationIdentity,
    items: SampleSet,
    answered: Sequence[SampleResult],
    scored: Sequence[ReportedSample],
    *,
    adapters: Mapping[str, Manifest],
    seen: Mapping[str, int] | None = None,
    seconds: float,
    sandbox: str = "",
) -> Report:
    """Return the whole report.

    ``adapters`` has the manifests of the strategies' adapters, by the strategies' ids; ``seen`` has how many of the
    items each of them was tuned on.
    """
    by_strategy = _by_strategy(answered)
    strategies = tuple(
        StrategyResult(
            id=name,
            settings=asked.settings,
            seeds=asked.seeds,
            metrics=_measures(values(scored, name)) | _corpus_measures(scored, name),
            groups={
                group: _measures(values([item for item in scored if item.group == group], name))
                for group in groups(items.items)
            },
            costs=_costs(by_strategy[name], adapters.get(name)),
        )
        for name, asked in identity.strategies.items()
        if by_strategy[name]
    )
    baseline = strategies[0].id
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=identity.command,
        seconds=seconds,
        model=identity.model,
        model_sha256=identity.model_sha256,
        engine=identity.engine,
        decoding={**identity.decoding, "longest answer": f"{identity.max_tokens} tokens"},
        sandbox=sandbox,
        data=DataFacts(
            name=items.name,
            part=items.part,
            items=len(items.items),
            digest=items.digest,
            licence=items.licence,
            provenance=items.provenance,
            notes=items.notes,
        ),
        machine=this_machine(nodes=len({each.given.node for each in answered})),
        versions={package: version(package) for package in PACKAGES},
        baseline=baseline,
        strategies=strategies,
        comparisons=tuple(_comparisons(scored, [each.id for each in strategies], baseline)),
        items=tuple(scored),
        warnings=(
            *_seen(items, seen or {}),
            *_unfinished(identity, items, by_strategy),
            *_warnings(items, scored, sandbox),
        ),
    )


def values(scored: Iterable[ReportedSample], strategy: str) -> dict[str, dict[str, float]]:
    """Return a strategy's scores by metric (in the order of ``METRICS``), then by sample: the mean over its seeds."""
    means = SampleMeans()
    for sample in scored:
        for each in sample.answers:
            if each.strategy == strategy:
                means.add(sample.id, each.scores)
    return means.values()


def _by_strategy(answered: Iterable[SampleResult]) -> dict[str, list[SampleResult]]:
    found: dict[str, list[SampleResult]] = defaultdict(list)
    for each in answered:
        found[each.strategy].append(each)
    return found


def _measures(of_strategy: Mapping[str, SampleValues]) -> dict[str, Measure]:
    return {metric: measure(numbers, METRICS[metric].kind) for metric, numbers in of_strategy.items()}


def _corpus_measures(scored: Sequence[ReportedSample], strategy: str) -> dict[str, Measure]:
    """Return CodeBLEU of all answers as one text, the mean over the seeds; nothing if the answers have no CodeBLEU."""
    pairs: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for sample in scored:
        for each in sample.answers:
            if each.strategy == strategy and "codebleu" in each.scores:
                pairs[each.seed].append((each.texts[0] if each.texts else "", sample.reference))
    if not pairs:
        return {}
    value = fmean(corpus_code_bleu(of_seed) for of_seed in pairs.values())
    count = max(map(len, pairs.values()))
    return {CODE_BLEU_OF_ALL: Measure(value=value, low=value, high=value, count=count, interval="none")}


def _comparisons(scored: Sequence[ReportedSample], strategies: Sequence[str], baseline: str) -> Iterable[Comparison]:
    by_strategy = {strategy: values(scored, strategy) for strategy in strategies}
    for metric, numbers in by_strategy[baseline].items():
        if metric not in WHOLES:
            continue
        yield from adjust_p_values(
            [
                compare((strategy, by_strategy[strategy][metric]), (baseline, numbers), metric, METRICS[metric].kind)
                for strategy in strategies
                if strategy != baseline and metric in by_strategy[strategy]
            ]
        )


def _costs(answered: Sequence[SampleResult], manifest: Manifest | None) -> Costs:
    given = [each.given for each in answered]
    latencies = [each.latency_ms for each in given]
    at_once = max(each.beside for each in given)
    spent = sum(latencies) / 1000 / at_once
    p50, p95 = np.quantile(latencies, (0.5, 0.95))
    return Costs(
        prompt_tokens=fmean(each.prompt_tokens for each in given),
        reused_tokens=fmean(each.reused_tokens for each in given),
        answer_tokens=fmean(each.answer_tokens for each in given),
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        tokens_per_s=sum(each.answer_tokens for each in given) / spent if spent else 0.0,
        at_once=at_once,
        peak_memory_bytes=max(each.memory_bytes for each in answered) or None,
        adapter_bytes=(manifest.gguf_bytes or manifest.peft_bytes) if manifest else None,
        tuning_seconds=manifest.metrics.get("seconds") if manifest else None,
    )


def _seen(items: SampleSet, seen: Mapping[str, int]) -> Iterable[str]:
    for name, count in seen.items():
        if count:
            yield (
                f"The adapter of {name} was tuned on {count} of the {len(items.items)} items: "
                "its figures are better than they would be on new ones."
            )


def _unfinished(
    identity: EvaluationIdentity, items: SampleSet, by_strategy: Mapping[str, Sequence[SampleResult]]
) -> Iterable[str]:
    for name, asked in identity.strategies.items():
        there, wanted = len(by_strategy.get(name, ())), len(asked.seeds) * len(items.items)
        if there < wanted:
            yield f"{name} has {there} of {wanted} answers: evaluate it again with --resume."


def _warnings(items: SampleSet, scored: Sequence[ReportedSample], sandbox: str) -> Iterable[str]:
    if (tested := sum(isinstance(each.tests, RepositoryTests) for each in items.items)) and tested < len(items.items):
        yield f"pass@k is of the {tested} of {len(items.items)} holes that your tests exercise."
    if len(items.items) < 100:
        yield f"{len(items.items)} items are few: intervals are wide, and only large differences can be shown."
    # Whether a reference has data flow is the same for all answers to it.
    with_code = [each.answers[0].scores for each in scored if each.answers and "codebleu" in each.answers[0].scores]
    bare = sum("codebleu-dataflow" not in each for each in with_code)
    if bare:
        yield (
            f"CodeBLEU: {bare} of {len(with_code)} references have no data flow; "
            "for these every answer gets the full score of that part."
        )
    if sandbox == "none":
        yield "Answers were run without a sandbox: they could read the user's files, but not what the tests expect."


def compare_reports(before: Report, after: Report) -> tuple[Comparison, ...]:
    """Compare each strategy that is in both reports on each common metric; a difference above 0 favours ``after``.

    p is adjusted for the number of strategies. Raises InvalidInput if the items differ or no strategy is in both.
    """
    if before.data.digest != after.data.digest:
        raise InvalidInput(
            "the two reports are not of the same items",
            why=f"{_data(before)}, and {_data(after)}",
            fix="Evaluate both on the same data and with the same --limit",
        )
    names = [each.id for each in before.strategies if each.id in {other.id for other in after.strategies}]
    if not names:
        raise InvalidInput(
            "the two reports share no strategy",
            why=f"{_strategies(before)}, and {_strategies(after)}",
            fix="Evaluate one strategy in both",
        )
    return tuple(found for metric in WHOLES for found in adjust_p_values(list(_on(metric, names, before, after))))


def compare_strategies(report: Report, baseline: str) -> tuple[Comparison, ...]:
    """Compare all other strategies with ``baseline`` on each common metric; a difference above 0 favours the other.

    p is adjusted for the number of strategies. Raises InvalidInput if ``baseline`` is not in the report, or the only
    strategy.
    """
    others = [each.id for each in report.strategies if each.id != baseline]
    if len(others) == len(report.strategies) or not others:
        raise InvalidInput(
            f"nothing can be compared with '{baseline}'",
            why=f"the report has {_strategies(report)}",
            fix="Name another",
        )
    old = values(report.items, baseline)
    found: list[Comparison] = []
    for metric in WHOLES:
        pairs = [(name, new[metric]) for name in others if metric in (new := values(report.items, name))]
        paired = [pair for pair in pairs if metric in old and pair[1].keys() & old[metric].keys()]
        kind = METRICS[metric].kind
        found += adjust_p_values([compare(pair, (baseline, old[metric]), metric, kind) for pair in paired])
    return tuple(found)


def _on(metric: str, names: list[str], before: Report, after: Report) -> Iterator[Comparison]:
    for name in names:
        old, new = values(before.items, name), values(after.items, name)
        if metric in old and metric in new and old[metric].keys() & new[metric].keys():
            yield compare((name, new[metric]), (name, old[metric]), metric, METRICS[metric].kind)


def _data(report: Report) -> str:
    return f"{report.data.name}, {report.data.part} ({report.data.items} items, {report.data.digest[:12]})"


def _strategies(report: Report) -> str:
    return ", ".join(each.id for each in report.strategies)
