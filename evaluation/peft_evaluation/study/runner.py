"""Run a study: for each cell do what is missing, write down what fails and go on, and make one report of all.

The same command goes on after any interruption, and tries failed cells again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import fmean

import msgspec

from peft_core import files
from peft_core.errors import Conflict, InvalidInput
from peft_core.tasks import OnProgress
from peft_evaluation.journal import Journal
from peft_evaluation.study.definition import Cell, StudyData
from peft_evaluation.study.progress import (
    CELLS_FILE,
    CellRecord,
    StudyRequest,
    TuningCosts,
    adapter_of,
    begin,
    done_cells,
)
from peft_evaluation.study.report import write_report
from peft_evaluation.study.results import StudyReport, StudyTable, collect
from peft_evaluation.study.steps import ReportStep, StepError, StepEvent, StepOrder, run_step

DIAGNOSTICS_FILE = "last-failure.txt"
"""What the last process that failed without saying why wrote to stderr, with its traceback."""


class CellStarted(msgspec.Struct, frozen=True, kw_only=True, tag="cell"):
    """Event: a cell is tuned or answered now; the events of tuning and evaluation follow."""

    number: int
    of: int
    cell: str
    """What people read: ``lora × conala, seed 42``."""
    model: str
    step: str
    """``tuning`` or ``answering``."""


class CellEnded(msgspec.Struct, frozen=True, kw_only=True, tag="cell_ended"):
    """Event: a cell is done, or failed for this reason."""

    number: int
    of: int
    cell: str
    model: str
    reason: str = ""
    """Empty: it is done."""
    eta_s: float | None = None
    """Seconds that the cells left take, if they take as long as those that have ended; None without any."""


class StudyReported(msgspec.Struct, frozen=True, kw_only=True, tag="study"):
    """Event: the study's report was written. It is the last one."""

    folder: str
    name: str
    tables: tuple[StudyTable, ...]
    notes: tuple[str, ...]


StudyEvent = CellStarted | CellEnded | StudyReported | StepEvent


def run_study(request: StudyRequest, on_progress: OnProgress[StudyEvent]) -> StudyReport:
    """Tune and answer what is missing, and write the report of the study.

    Raises NotFound for a model that is not installed, Conflict if the study was begun with other values or another
    process works on it, Cancelled for Ctrl-C, NoSpace, and StepError if nothing could be answered. What fails in a cell
    is written down with its reason.
    """
    begin(request)
    with Journal(request.folder / CELLS_FILE, CellRecord) as journal:
        cells, done = request.study.cells(), done_cells(request)
        times = CellTimes()
        for number, cell in enumerate(cells, 1):
            if cell.id in done:
                continue
            label, of = request.study.label(cell), len(cells)
            began, reason = time.monotonic(), ""
            try:
                for step, order in _missing(request, cell):
                    on_progress(CellStarted(number=number, of=of, cell=label, model=cell.model, step=step))
                    run_step(order, on_progress)
            except StepError as error:
                reason = error.cause
                if error.diagnostics:
                    files.write_private(request.folder / DIAGNOSTICS_FILE, error.diagnostics.encode())
            except (InvalidInput, Conflict) as error:
                reason = error.cause
            now = datetime.now(UTC).isoformat(timespec="seconds")
            adapter = adapter_of(request, cell) if cell.method is not None and not reason else None
            costs = TuningCosts.of(adapter) if adapter is not None else None
            spent = time.monotonic() - began
            journal.append(CellRecord(cell=cell.id, reason=reason, at=now, seconds=spent, tuning=costs))
            if not reason:
                times.add(cell, spent)
            left = [each for each in cells[number:] if each.id not in done]
            on_progress(
                CellEnded(
                    number=number, of=of, cell=label, model=cell.model, reason=reason, eta_s=times.seconds_of(left)
                )
            )
        for model in request.study.models:
            for data in request.study.datasets:
                _report_answers(request, model, data, on_progress)
        report = collect(request)
        write_report(request.folder, report)
    on_progress(StudyReported(folder=str(request.folder), name=report.name, tables=report.tables, notes=report.notes))
    return report


class CellTimes:
    """How long cells took; those with a method are tuned too, so they are counted apart."""

    def __init__(self) -> None:
        self._seconds: dict[bool, list[float]] = {}

    def add(self, cell: Cell, seconds: float) -> None:
        """Count a cell that is done."""
        self._seconds.setdefault(cell.method is not None, []).append(seconds)

    def seconds_of(self, cells: Sequence[Cell]) -> float | None:
        """Return what these cells will take, by the mean of their kind, else of all; None if none was counted."""
        if not self._seconds:
            return None
        every = [seconds for kind in self._seconds.values() for seconds in kind]
        return sum(fmean(self._seconds.get(each.method is not None, every)) for each in cells)


def _missing(request: StudyRequest, cell: Cell) -> Iterator[tuple[str, StepOrder]]:
    """Yield the steps that a cell still needs, each with its name."""
    if cell.method is not None and adapter_of(request, cell) is None:
        yield "tuning", request.order(cell.model, request.tune_step(cell))
    yield "answering", request.order(cell.model, request.answer_step(cell))


def _report_answers(request: StudyRequest, model: str, data: StudyData, on_progress: OnProgress[StudyEvent]) -> None:
    """Have the answers of one table run and scored, if there are any."""
    first = next(request.study.cells_of(model, data))
    if (request.evaluation_folder(model, data) / "answers.jsonl").exists():
        run_step(request.order(model, ReportStep(answers=request.answer_step(first))), on_progress)
