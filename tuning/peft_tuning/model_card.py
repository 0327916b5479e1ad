"""The description of a finished run: a record beside the weights, and a model card with loss curves as SVG."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from peft_core.api_types import Task
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import RECORD_FILE
from peft_daemon.models.catalogue import ModelEntry
from peft_tuning.data.examples import DataSet
from peft_tuning.encode import task_of
from peft_tuning.events import JUDGED, GateVerdict, duration
from peft_tuning.trainer import TuneResult

if TYPE_CHECKING:
    from collections.abc import Sequence

CARD, CURVES = "README.md", "loss.svg"
PACKAGES = ("peft-daemon", "torch", "transformers", "peft", "accelerate")


def write_description(
    name: str, entry: ModelEntry, data: DataSet, result: TuneResult, verdicts: Sequence[GateVerdict] = ()
) -> None:
    """Write the record beside the weights and the card beside their folder."""
    record = training_record(entry, data, result, verdicts)
    (result.adapter / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    write_card(result.adapter.parent, name, record, data=data, result=result, verdicts=verdicts)


def tasks_of(data: DataSet) -> tuple[Task, ...]:
    """Return the tasks that the examples of a data set teach; filling in first."""
    kinds = {task_of(each) for each in data.train}
    return tuple(task for task in Task if task in kinds)


def training_record(
    entry: ModelEntry, data: DataSet, result: TuneResult, verdicts: Sequence[GateVerdict] = ()
) -> TrainingRecord:
    """Collect what is known of the run and is not in the weights.

    The figures of the second of two tasks have its name before theirs.
    """
    identity, tasks = result.identity, tasks_of(data)
    metrics = {} if result.best_loss is None else {"validation_loss": result.best_loss}
    metrics |= {
        "steps": float(result.steps),
        "best_step": float(result.best_step),
        "train_examples": float(len(data.train[: identity.limit])),
        "seconds": result.seconds,
        "peak_memory_bytes": float(result.peak_memory_bytes),
        "trainable_parameters": float(result.trainable_parameters),
    }
    return TrainingRecord(
        base=entry.id,
        base_sha256=identity.base_sha256,
        quantization=identity.quantization,
        prompt_format=identity.prompt_formats[tasks[0].value],
        tasks=tasks,
        method=identity.method,
        data_digest=identity.data_digest,
        seed=identity.seed,
        versions={package: version(package) for package in PACKAGES},
        metrics=metrics
        | {
            f"{verdict.task}_{key}" if number else key: value
            for number, verdict in enumerate(verdicts)
            for key, value in verdict.metrics.items()
        },
        # What is between two adapters is in the weights.
        scale=(verdicts[0].scale or 1.0) if verdicts and not verdicts[0].start else 1.0,
        licence=data.licence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_card(
    folder: Path,
    name: str,
    record: TrainingRecord,
    *,
    data: DataSet,
    result: TuneResult,
    verdicts: Sequence[GateVerdict],
) -> None:
    """Write ``README.md`` and ``loss.svg`` into ``folder``."""
    draw_curves(folder / CURVES, result)
    (folder / CARD).write_text(_card(name, record, data, result, verdicts), encoding="utf-8")


def draw_curves(path: Path, result: TuneResult) -> None:
    """Draw training and validation loss against steps; the same figures give the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415  (a second, and only at the end of a run)
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context():
        # matplotlib reads a `matplotlibrc` in the working folder, which can make it run LaTeX.
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.hashsalt": "peft-daemon", "svg.fonttype": "none"})
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        if result.losses:
            axes.plot(*zip(*result.losses, strict=True), linewidth=0.8, alpha=0.6, label="training")
        if result.evaluations:
            axes.plot(*zip(*result.evaluations, strict=True), marker="o", label="validation")
            axes.axvline(result.best_step, linestyle=":", color="gray", label="best")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per answer token)")
        axes.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _card(name: str, record: TrainingRecord, data: DataSet, result: TuneResult, verdicts: Sequence[GateVerdict]) -> str:
    identity = result.identity
    chosen_by = len(data.validation[: identity.limit][: identity.validation_limit])
    rows = {
        "base": f"{record.base} ({record.base_sha256[:12]}), {record.quantization}",
        "method": f"{record.method}, {result.trainable_parameters:,} parameters",
        "tasks": ", ".join(record.tasks),
        "prompt format": record.prompt_format,
        "data": f"{data.name}, digest {data.digest[:12]}",
        "examples": f"{len(data.train[: identity.limit]):,} to learn from, {chosen_by:,} to choose the best weights by",
        "where the data is from": data.provenance or "not recorded",
        "licence": record.licence,
        "steps": f"{result.steps:,} of batch {identity.batch_size}, learning rate {identity.learning_rate:g}",
        "best validation loss": "none" if result.best_loss is None else f"{result.best_loss:.4f}",
        "best step": str(result.best_step),
        "time, peak memory": f"{duration(result.seconds)} on {identity.device}, {identity.threads} threads; "
        f"{result.peak_memory_bytes / 1e9:.1f} GB",
        "seed": str(record.seed),
        "scale": f"{record.scale:g}",
        "versions": ", ".join(f"{package} {version}" for package, version in record.versions.items()),
    }
    table = "\n".join(f"| {label} | {value} |" for label, value in rows.items())
    text = f"# {name}\n\n| | |\n|---|---|\n{table}\n\n![loss]({CURVES})\n"
    several = len(verdicts) > 1
    return text + "".join(_judgement(verdict, name, JUDGED[verdict.task], several=several) for verdict in verdicts)


def _judgement(verdict: GateVerdict, name: str, what: str, *, several: bool) -> str:
    points = "\n".join(
        f"| {point.scale:g} | {point.average.nats:.3f} | {point.average.exact:.1%} |" for point in verdict.sweep
    )
    points += "".join(
        f"\n| {f'{each.scale:g}' if each.scale else verdict.opponent}, {each.tokens} tokens of other files "
        f"| {each.average.nats:.3f} | {each.average.exact:.1%} |"
        for each in verdict.with_context
    )
    served, chosen = f"{verdict.opponent}, which served", verdict.opponent if verdict.context_alone else name
    averages = {"base": verdict.base}
    averages[served + _code_shown(verdict.served_context)] = verdict.served
    averages[chosen + _code_shown(verdict.context)] = verdict.adapter
    contestants = "\n".join(f"| {who} | {each.nats:.3f} | {each.exact:.1%} |" for who, each in averages.items())
    text = (
        f"\n## Does it help{f' with {what}' if several else ''}?\n\n"
        f"{'Yes' if verdict.activate else 'Not shown'}: {verdict.reason}.\n\n"
        f"| {f'of the way from {verdict.start} to it' if verdict.start else 'scale'} | nats per token | exact |\n"
        f"|---|---|---|\n{points}\n\n"
        f"| on {verdict.base.holes} other {what} | nats per token | exact |\n|---|---|---|\n{contestants}\n"
    )
    if verdict.general_served.holes:
        text += (
            f"\nGeneral code, nats per token: {verdict.general_served.nats:.3f} with {verdict.opponent}, "
            f"{verdict.general_adapter.nats:.3f} with it.\n"
        )
    return text


def _code_shown(tokens: int) -> str:
    return f", {tokens} tokens of other files" if tokens else ""
