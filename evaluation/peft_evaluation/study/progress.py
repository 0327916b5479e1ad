"""What of a study is done, and the orders for what is missing.

The study's folder has ``run.json``, which says what was begun, and ``cells.jsonl``, which says how each cell ended. The
adapters are in the registry and the answers in evaluations, both of which survive any interruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from peft_core import files
from peft_core.errors import Conflict, NotFound
from peft_core.files import private_folder
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import TORCH
from peft_daemon.adapters.manifest import Manifest
from peft_daemon.engines.torch.base_model import serving_precision
from peft_evaluation.journal import IDENTITY_FILE, Journal
from peft_evaluation.report.store import STUDIES
from peft_evaluation.runner import evaluation_folder
from peft_evaluation.study.definition import Cell, MethodSettings, Study, StudyData
from peft_evaluation.study.steps import AnswerStep, StepOrder, StudyStep, TuneStep
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob, load_identity

_SETTINGS = (
    *("method", "options", "epochs", "batch_size", "evaluations_per_epoch", "patience"),
    *("max_steps", "limit", "validation_limit"),
)
"""Settings of a job that decide what an adapter learned."""
CELLS_FILE = "cells.jsonl"


class TuningCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter costs; in a row of the report the mean over its seeds, of memory the most."""

    trainable_parameters: int
    adapter_bytes: int
    peak_memory_bytes: int
    """Of the training process, with the base model in the method's precision."""
    seconds: float
    """Training with its evaluations, without loading."""
    steps: float
    best_step: float

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Return the costs that were recorded with an adapter."""
        figures = manifest.metrics
        return cls(
            trainable_parameters=int(figures.get("trainable_parameters", manifest.parameters)),
            adapter_bytes=manifest.peft_bytes,
            peak_memory_bytes=int(figures.get("peak_memory_bytes", 0.0)),
            seconds=figures.get("seconds", 0.0),
            steps=figures.get("steps", 0.0),
            best_step=figures.get("best_step", 0.0),
        )


class CellRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``cells.jsonl``: how a cell ended. The last line of a cell counts."""

    cell: str
    reason: str = ""
    """Why it failed; empty: it is done."""
    at: str
    """ISO 8601, UTC."""
    seconds: float
    """Of the last process that worked on it, tuning and answering together."""
    tuning: TuningCosts | None = None
    """Of its adapter, which may be removed when it has answered."""


class StudyIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a study's ``run.json``: what has to be the same to go on with it."""

    study: Study
    models: dict[str, str]
    """sha256 of each model."""
    precision: str
    """In which the weights answer."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """A study as the user asked for it."""

    study: Study
    settings: Settings
    paths: Paths
    ray: str | None = None
    """Address of the Ray cluster whose nodes answer; None: this machine does."""
    command: str = ""
    """The command line, for the reports."""

    @property
    def folder(self) -> Path:
        """Where the study's journal and report are."""
        return self.paths.data / STUDIES / self.study.name

    @property
    def precision(self) -> str:
        """In which the weights answer."""
        if self.study.answering.engine != TORCH:
            return "the model's file has them"
        return serving_precision(self.settings.torch_precision).value

    def installation(self, model: str) -> Installation:
        """Return the installation with ``model`` as its base, answered by the study's engine."""
        settings = replace(self.settings, model=model, engine=self.study.answering.engine)
        return Installation(settings=settings, paths=self.paths)

    def evaluation_folder(self, model: str, data: StudyData) -> Path:
        """Return the folder of the evaluation that has the cells of one table."""
        return evaluation_folder(self.installation(model), self.study.evaluation(model, data))

    def order(self, model: str, step: StudyStep) -> StepOrder:
        """Return what the process of a step is told."""
        paths = {each.name: str(getattr(self.paths, each.name)) for each in fields(Paths)}
        return StepOrder(settings=self.installation(model).settings, paths=paths, step=step)

    def tune_step(self, cell: Cell) -> TuneStep:
        """Return the step that makes a cell's adapter."""
        return TuneStep(adapter=self.study.adapter(cell), data=cell.data, job=self.study.job(cell))

    def answer_step(self, cell: Cell) -> AnswerStep:
        """Return the step that answers a cell's questions."""
        strategy, sweep = cell.strategy(self.study.adapter(cell) if cell.method else "")
        return AnswerStep(
            evaluation=self.study.evaluation(cell.model, cell.data),
            data=cell.data,
            answering=self.study.answering,
            strategies=(strategy,),
            sweep=sweep,
            command=self.command,
            ray=self.ray,
        )


def begin(request: StudyRequest) -> None:
    """Write ``run.json`` of a new study, or check that it is the one that was begun; cells may be added to it.

    Raises NotFound for a model that is not installed, Conflict, which names the differences, for another study.
    """
    models = {}
    for model in request.study.models:
        installation = request.installation(model)
        if not installation.base.path.exists():
            raise NotFound(f"{model} is not installed", fix=f"`peft-daemon models pull {model}`")
        models[model] = installation.base.sha256
    wanted = StudyIdentity(study=request.study, models=models, precision=request.precision)
    path = private_folder(request.folder) / IDENTITY_FILE
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=StudyIdentity)
        except (OSError, ValueError, RecursionError) as error:
            raise Conflict(f"cannot read {path}", why=str(error), fix="Give the study another `name`") from None
        if differing := list(_differences(before, wanted)):
            raise Conflict(
                f"the study in {request.folder} was begun with other values",
                why="; ".join(differing),
                fix="Use the same values, or give the study another `name`",
            )
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(wanted), indent=2))


def _differences(before: StudyIdentity, wanted: StudyIdentity) -> Iterator[str]:
    """Yield what would change the result of a cell; further models, data sets, methods and strategies do not."""

    def values(identity: StudyIdentity) -> dict[str, Any]:
        study = identity.study
        return {
            "seeds": study.seeds,
            "answering.engine": study.answering.engine,
            "precision": identity.precision,
            "tuning": replace(study.tuning, threads=None, niceness=0),
            **{f"options.{method}": study.options.get(method, MethodSettings()) for method in study.methods},
            **{f"datasets {data.label}": replace(data, path=None) for data in study.datasets},
            **{f"model {model}": sha256 for model, sha256 in identity.models.items()},
        }

    old, new = values(before), values(wanted)
    for name in old:
        if name in new and old[name] != new[name]:
            was, now = (msgspec.json.encode(each).decode() for each in (old[name], new[name]))
            yield f"{name} was {was} and is {now}"


def adapter_of(request: StudyRequest, cell: Cell) -> Manifest | None:
    """Return the adapter that was tuned for a cell; None if it is missing.

    Raises Conflict for an adapter of that name that something else made.
    """
    installation, name = request.installation(cell.model), request.study.adapter(cell)
    with suppress(NotFound):
        manifest = installation.registry.get(name)
        if differing := list(_other_settings(installation, manifest, request.study.job(cell))):
            raise Conflict(
                f"the adapter '{name}' is not one of this study",
                why=f"it was made with another {', '.join(differing)}",
                fix=f"Give the study another `name`, or `peft-daemon adapters remove {name}`",
            )
        return manifest
    return None


def _other_settings(installation: Installation, manifest: Manifest, job: TuneJob) -> Iterator[str]:
    """Yield the settings of a study's adapter that are not those of the job that would make it."""
    if manifest.base_sha256 != installation.entry.sha256:
        yield "model"
    if manifest.seed != job.seed:
        yield "seed"
    with suppress(NotFound):  # the run's folder may be deleted when its adapter is registered
        begun = load_identity(installation.folder(manifest.name))
        rate = () if job.learning_rate is None else ("learning_rate",)
        yield from (name for name in (*_SETTINGS, *rate) if getattr(begun, name) != getattr(job, name))


def cell_records(request: StudyRequest) -> Mapping[str, CellRecord]:
    """Return how each cell ended that was worked on, by its id; done cells whose answers are gone are left out."""
    records = {each.cell: each for each in Journal(request.folder / CELLS_FILE, CellRecord).read()}
    return {
        cell.id: record
        for cell in request.study.cells()
        if (record := records.get(cell.id)) is not None and (record.reason or _has_answers(request, cell))
    }


def _has_answers(request: StudyRequest, cell: Cell) -> bool:
    return (request.evaluation_folder(cell.model, cell.data) / IDENTITY_FILE).exists()


def done_cells(request: StudyRequest) -> frozenset[str]:
    """Return the ids of the cells that are done."""
    return frozenset(id_ for id_, record in cell_records(request).items() if not record.reason)
