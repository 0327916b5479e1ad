"""What a study takes, before it is run: its cells, what is done, and measured minutes and memory of what is missing.

Each kind of step is measured in a process of its own: a few optimizer steps at a rate of 0 for each method, and a few
answers for each strategy. Measurements are kept, so the next plan of the study measures only what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec

from peft_core.tasks import OnProgress
from peft_evaluation.journal import Journal
from peft_evaluation.study.definition import BASELINE, Cell
from peft_evaluation.study.progress import StudyRequest, adapter_of, begin, done_cells
from peft_evaluation.study.runner import CellStarted, StudyEvent
from peft_evaluation.study.steps import AnswerStep, MeasureStep, StepError, StepMeasured, TuneStep, run_step

MEASURED_FILE = "measured.jsonl"


class MeasuredStep(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``measured.jsonl``."""

    step: str
    """Which step: model, data set, and method or strategy."""
    measured: StepMeasured | None = None
    reason: str = ""
    """Why it cannot be done; empty: it can."""


class CellForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell still takes."""

    cell: str
    model: str
    done: bool
    tuning_s: float | None = None
    """None: nothing is to be tuned, or it cannot be."""
    answering_s: float | None = None
    memory_bytes: int = 0
    """The larger one of tuning and answering."""
    trainable_parameters: int | None = None
    reason: str = ""
    """Why it cannot be done."""


class StudyForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a study still takes."""

    name: str
    cells: tuple[CellForecast, ...]
    seconds: float
    memory_bytes: int
    available_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the largest step fits into the memory there was."""
        return self.memory_bytes <= self.available_bytes or not self.available_bytes


def forecast(request: StudyRequest, on_progress: OnProgress[StudyEvent]) -> StudyForecast:
    """Measure what was not measured yet, and return what the study still takes.

    Raises what ``begin`` raises, Conflict while another process works on the study, and Cancelled for Ctrl-C.
    """
    begin(request)
    done = done_cells(request)
    every = request.study.cells()
    with Journal(request.folder / MEASURED_FILE, MeasuredStep) as journal:
        known = {each.step: each for each in journal.read()}
        for number, cell in enumerate(every, 1):
            for key, step in () if cell.id in done else _steps(request, cell):
                if key in known:
                    continue
                on_progress(
                    CellStarted(
                        number=number, of=len(every), cell=request.study.label(cell), model=cell.model, step="measuring"
                    )
                )
                known[key] = _measure(request, cell.model, key, step, on_progress)
                if known[key].measured is not None:  # what failed is tried again by the next plan
                    journal.append(known[key])
    cells = tuple(_of_cell(request, cell, cell.id in done, known) for cell in every)
    return StudyForecast(
        name=request.study.name,
        cells=cells,
        seconds=sum((each.tuning_s or 0.0) + (each.answering_s or 0.0) for each in cells),
        memory_bytes=max((each.memory_bytes for each in cells), default=0),
        available_bytes=max((each.measured.available_bytes for each in known.values() if each.measured), default=0),
    )


def _tuning_key(cell: Cell) -> str:
    return f"{cell.model}/{cell.data.label}/tune {cell.method}"


def _answering_key(cell: Cell) -> str:
    return f"{cell.model}/{cell.data.label}/answer {cell.prompting}"


def _steps(request: StudyRequest, cell: Cell) -> Iterator[tuple[str, TuneStep | AnswerStep]]:
    """Yield the steps that a cell still needs, each with its key."""
    if cell.method is not None and adapter_of(request, cell) is None:
        yield _tuning_key(cell), request.tune_step(cell)
    # Without an adapter: it changes the time little, and is not there yet.
    alone = replace(cell, method=None, seeds=cell.seeds[:1])
    yield _answering_key(cell), request.answer_step(alone)


def _measure(
    request: StudyRequest, model: str, key: str, step: TuneStep | AnswerStep, on_progress: OnProgress[StudyEvent]
) -> MeasuredStep:
    found: list[StepMeasured] = []

    def keep(event: StudyEvent) -> None:
        if isinstance(event, StepMeasured):
            found.append(event)
        else:
            on_progress(event)

    try:
        run_step(request.order(model, MeasureStep(step=step)), keep)
    except StepError as error:
        return MeasuredStep(step=key, reason=error.what)
    return MeasuredStep(step=key, measured=found[0])


def _of_cell(request: StudyRequest, cell: Cell, done: bool, known: Mapping[str, MeasuredStep]) -> CellForecast:
    if done:
        return CellForecast(cell=request.study.label(cell), model=cell.model, done=True)
    answering = known.get(_answering_key(cell))
    tuning = known.get(_tuning_key(cell)) if cell.method is not None else None
    reasons = [each.reason for each in (tuning, answering) if each is not None and each.reason]
    answers, training = (each.measured if each is not None else None for each in (answering, tuning))
    # An adapter that answers with examples as well is tuned once, for its first cell.
    tuned = cell.prompting == BASELINE and cell.method is not None and adapter_of(request, cell) is None
    return CellForecast(
        cell=request.study.label(cell),
        model=cell.model,
        done=False,
        tuning_s=training.seconds if training and tuned else None,
        answering_s=answers.seconds * max(len(cell.seeds), 1) if answers and not reasons else None,
        memory_bytes=max((each.memory_bytes for each in (answers, training) if each), default=0),
        trainable_parameters=training.trainable_parameters if training else None,
        reason="; ".join(reasons),
    )
