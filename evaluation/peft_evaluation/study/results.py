"""The results of a study: what ``study.json`` holds, made of the evaluations' reports and the adapters' manifests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import fmean

import msgspec

from peft_core.errors import NotFound
from peft_evaluation.generation import SampleResult, generation_seconds
from peft_evaluation.journal import Journal
from peft_evaluation.report import store
from peft_evaluation.report.schema import Comparison, DataFacts, Machine, Measure, ReportedSample, this_machine
from peft_evaluation.scorers.metrics import CODE_BLEU_OF_ALL, METRICS, WHOLES
from peft_evaluation.scorers.scoring import SampleMeans
from peft_evaluation.stats import SampleValues, adjust_p_values, compare, measure_over_seeds
from peft_evaluation.study.definition import BASELINE, Cell, Study, StudyData
from peft_evaluation.study.progress import StudyRequest, TuningCosts, cell_records

PACKAGES = ("peft-daemon", "torch", "transformers", "peft", "sacrebleu", "bm25s")
SCHEMA = 1
"""Version of the format of ``study.json``."""


class AnsweringCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What answers cost; over the seeds the mean, of memory the most."""

    peak_memory_bytes: int | None
    seconds: float
    """Until all questions were answered once, without loading."""
    prompt_tokens: float


class StudyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy, or a method with all its seeds, on one data set with one model."""

    name: str
    seeds: tuple[int, ...]
    """Those that are done; empty where nothing is drawn."""
    metrics: dict[str, Measure]
    by_seed: dict[str, dict[str, float]] = {}
    """By seed: the mean of each metric; empty without several seeds."""
    groups: dict[str, dict[str, Measure]] = {}
    """Metrics by group of questions (difficulty in APPS, kind of hole), if there are groups."""
    tuning: TuningCosts | None = None
    answering: AnsweringCosts | None = None
    failures: tuple[str, ...] = ()
    """Why it, or some of its seeds, have no result."""


class StudyTable(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one model on one data set, answered by one engine."""

    model: str
    model_sha256: str
    engine: str
    precision: str
    evaluation: str
    """Name of the evaluation that has every answer."""
    data: DataFacts
    train: str
    """Which training examples tuning learned from, and strategies showed."""
    decoding: dict[str, str]
    rows: tuple[StudyRow, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...]


class StudyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``study.json``."""

    schema: int = SCHEMA
    created: str
    """ISO 8601, UTC."""
    name: str
    command: str
    tuning: dict[str, str]
    """The settings of tuning that the study's file gives."""
    machine: Machine
    versions: dict[str, str]
    tables: tuple[StudyTable, ...]
    notes: tuple[str, ...]


def collect(request: StudyRequest) -> StudyReport:
    """Return the report of what is done.

    Raises NotFound if nothing is, and what reading the evaluations' reports raises.
    """
    study = request.study
    tables = tuple(
        _TableBuilder(request, model, data).table()
        for model in study.models
        for data in study.datasets
        if store.EVALUATION.is_at(request.evaluation_folder(model, data))
    )
    if not tables:
        reasons = dict.fromkeys(record.reason for record in cell_records(request).values() if record.reason)
        raise NotFound("nothing of this study could be answered", why="; ".join(reasons))
    return StudyReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        name=study.name,
        command=request.command,
        tuning=_tuning_facts(study),
        machine=this_machine(),
        versions={package: version(package) for package in PACKAGES},
        tables=tables,
        notes=tuple(_notes(study, tables)),
    )


class _TableBuilder:
    """Makes the table of one evaluation."""

    def __init__(self, request: StudyRequest, model: str, data: StudyData) -> None:
        self._request, self._data = request, data
        self._name = request.study.evaluation(model, data)
        self._cells = tuple(request.study.cells_of(model, data))
        folder = request.evaluation_folder(model, data)
        self._report = store.read_report(folder)
        self._answered = list(Journal(folder / "answers.jsonl", SampleResult).read())
        self._records = cell_records(request)
        self._groups: dict[str, list[ReportedSample]] = defaultdict(list)
        for item in self._report.items:
            if item.group:
                self._groups[item.group].append(item)

    def table(self) -> StudyTable:
        by_row: dict[str, list[Cell]] = defaultdict(list)
        for cell in self._cells:
            by_row[cell.row].append(cell)
        report, rows = self._report, []
        means: dict[str, Mapping[str, SampleValues]] = {}
        for name, cells in by_row.items():
            done = [cell for cell in cells if cell.id in self._records and not self._records[cell.id].reason]
            runs = {seed: values for cell in done for seed, values in self._runs(cell).items()}
            means[name] = _means(list(runs.values()))
            rows.append(self._row(name, cells, done, runs))
        return StudyTable(
            model=report.model,
            model_sha256=report.model_sha256,
            engine=report.engine,
            precision=self._request.precision,
            evaluation=self._name,
            data=report.data,
            train="all" if self._data.train is None else f"the first {self._data.train}",
            decoding=report.decoding,
            rows=tuple(rows),
            comparisons=tuple(_comparisons(means)),
            warnings=report.warnings,
        )

    def _row(
        self, name: str, cells: Sequence[Cell], done: Sequence[Cell], runs: Mapping[int, Mapping[str, SampleValues]]
    ) -> StudyRow:
        strategies = {self._strategy(cell) for cell in done}
        return StudyRow(
            name=name,
            seeds=tuple(seed for cell in done for seed in cell.seeds),
            metrics=_measures(list(runs.values())) | self._corpus_measures(strategies),
            by_seed={
                str(seed): {metric: fmean(numbers.values()) for metric, numbers in run.items() if numbers}
                for seed, run in runs.items()
                if len(runs) > 1
            },
            groups={
                group: _measures([_only(run, {item.id for item in items}) for run in runs.values()])
                for group, items in self._groups.items()
                if runs
            },
            tuning=_tuning_costs([costs for cell in done if (costs := self._records[cell.id].tuning) is not None]),
            answering=_answering_costs([each for each in self._answered if each.strategy in strategies]),
            failures=tuple(dict.fromkeys(self._failures(cells))),
        )

    def _corpus_measures(self, strategies: Set[str]) -> dict[str, Measure]:
        """Return what is measured of all answers as one text, the mean over the cells."""
        found = [
            each.metrics[CODE_BLEU_OF_ALL]
            for each in self._report.strategies
            if each.id in strategies and CODE_BLEU_OF_ALL in each.metrics
        ]
        if not found:
            return {}
        value, count = fmean(each.value for each in found), max(each.count for each in found)
        return {CODE_BLEU_OF_ALL: Measure(value=value, low=value, high=value, count=count, interval="none")}

    def _failures(self, cells: Sequence[Cell]) -> Iterable[str]:
        for cell in cells:
            reason = self._records[cell.id].reason if cell.id in self._records else "not done yet"
            if reason:
                yield f"seed {cell.seeds[0]}: {reason}" if len(cells) > 1 else reason

    def _strategy(self, cell: Cell) -> str:
        return cell.strategy_id(self._request.study.adapter(cell) if cell.method else "")

    def _runs(self, cell: Cell) -> dict[int, dict[str, dict[str, float]]]:
        """Return the scores of a cell: by seed of the study, by metric, by question."""
        wanted = self._strategy(cell)
        found: dict[int, SampleMeans] = defaultdict(SampleMeans)
        for item in self._report.items:
            for answer in item.answers:
                if answer.strategy == wanted:
                    found[cell.seeds[0] if cell.method else answer.seed].add(item.id, answer.scores)
        return {seed: means.values() for seed, means in found.items()}


def _measures(runs: Sequence[Mapping[str, SampleValues]]) -> dict[str, Measure]:
    """Return each metric over all questions and runs."""
    metrics = dict.fromkeys(metric for run in runs for metric in run)
    return {
        metric: measure_over_seeds([run[metric] for run in runs if metric in run], METRICS[metric].kind)
        for metric in metrics
    }


def _only(run: Mapping[str, SampleValues], items: Set[str]) -> dict[str, SampleValues]:
    """Return the scores of these questions; metrics that none of them has are left out."""
    kept = {metric: {item: numbers[item] for item in numbers if item in items} for metric, numbers in run.items()}
    return {metric: numbers for metric, numbers in kept.items() if numbers}


def _means(runs: Sequence[Mapping[str, SampleValues]]) -> dict[str, dict[str, float]]:
    """Return the mean over the runs of each metric and question."""
    means = SampleMeans()
    for run in runs:
        for metric, numbers in run.items():
            for item, number in numbers.items():
                means.add(item, {metric: number})
    return means.values()


def _tuning_costs(costs: Sequence[TuningCosts]) -> TuningCosts | None:
    if not costs:
        return None
    return TuningCosts(
        trainable_parameters=costs[0].trainable_parameters,
        adapter_bytes=costs[0].adapter_bytes,
        peak_memory_bytes=max(each.peak_memory_bytes for each in costs),
        seconds=fmean(each.seconds for each in costs),
        steps=fmean(each.steps for each in costs),
        best_step=fmean(each.best_step for each in costs),
    )


def _answering_costs(answered: Sequence[SampleResult]) -> AnsweringCosts | None:
    if not answered:
        return None
    strategies = {each.strategy for each in answered}
    # Of each strategy alone: a process may have answered several.
    seconds = sum(generation_seconds([each for each in answered if each.strategy == name]) for name in strategies)
    return AnsweringCosts(
        peak_memory_bytes=max(each.memory_bytes for each in answered) or None,
        seconds=seconds / len({(each.strategy, each.seed) for each in answered}),
        prompt_tokens=fmean(each.given.prompt_tokens for each in answered),
    )


def _comparisons(means: Mapping[str, Mapping[str, SampleValues]]) -> Iterable[Comparison]:
    """Yield the comparisons of all other rows with the baseline, metric by metric."""
    baseline = means.get(BASELINE, {})
    for metric in WHOLES:
        yield from adjust_p_values(
            [
                compare((name, run[metric]), (BASELINE, baseline[metric]), metric, METRICS[metric].kind)
                for name, run in means.items()
                if name != BASELINE and metric in run and metric in baseline
            ]
        )


def _tuning_facts(study: Study) -> dict[str, str]:
    given = {name: str(value) for name, value in msgspec.structs.asdict(study.tuning).items() if value is not None}
    for method, options in study.options.items():
        own = {name: value for name, value in msgspec.structs.asdict(options).items() if value not in (None, False)}
        given[method] = ", ".join(f"{name} {value}" for name, value in own.items())
    return given


def _notes(study: Study, tables: Sequence[StudyTable]) -> Iterable[str]:
    engines = ", ".join(dict.fromkeys(f"{each.engine} engine, weights as {each.precision}" for each in tables))
    yield f"All rows of a table were answered by the same engine in the same precision: {engines}."
    if any(method.startswith("qlora") for method in study.methods):
        yield "Methods that quantize the base do so while they train; the weights above answer for them as well."
    if len(study.seeds) > 1:
        yield (
            f"{len(study.seeds)} seeds: intervals are over questions and seeds, both drawn anew; tests are over "
            "questions, each with its mean over the seeds."
        )
    elif study.methods:
        yield "One seed: intervals and tests are over questions alone, so they do not tell how another seed would end."
    yield "Every method has its own learning rate. Memory is the peak of the process with the base model in it."
