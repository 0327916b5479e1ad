"""What a finished run leaves for others: the record beside the weights, and the card."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from peft_core.api_types import Task
from peft_daemon.adapters.manifest import TrainingRecord
from peft_daemon.adapters.peft_files import RECORD
from peft_daemon.models.catalogue import ModelEntry
from peft_tuning.examples import DataSet, FillExample
from peft_tuning.model_card import write_card
from peft_tuning.training import TuneResult

if TYPE_CHECKING:
    from peft_tuning.gate import Verdict

PACKAGES = ("peft-daemon", "torch", "transformers", "peft", "accelerate")


def tasks_of(data: DataSet) -> tuple[Task, ...]:
    """What the examples of a data set teach; filling in first."""
    kinds = {Task.FILL if isinstance(each, FillExample) else Task.INTENT for each in data.train}
    return tuple(task for task in (Task.FILL, Task.INTENT) if task in kinds)


def training_record(
    entry: ModelEntry, data: DataSet, result: TuneResult, verdict: Verdict | None = None
) -> TrainingRecord:
    """Everything that is known of the run and cannot be read off the weights."""
    identity, tasks = result.identity, tasks_of(data)
    metrics = {} if result.best_loss is None else {"validation_loss": result.best_loss}
    metrics |= {
        "steps": float(result.steps),
        "best_step": float(result.best_step),
        "train_examples": float(len(data.train[: identity.limit])),
        "seconds": result.seconds,
        "peak_memory_bytes": float(result.peak_memory_bytes),
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
        metrics=metrics | (verdict.metrics if verdict else {}),
        scale=(verdict.scale or 1.0) if verdict else 1.0,
        licence=data.licence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def describe(name: str, entry: ModelEntry, data: DataSet, result: TuneResult, verdict: Verdict | None = None) -> None:
    """Write the record beside the weights and the card beside their folder."""
    record = training_record(entry, data, result, verdict)
    (result.adapter / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    write_card(result.adapter.parent, name, record, data=data, result=result, verdict=verdict)
