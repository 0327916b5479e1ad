"""The steps of a study, each in a process of its own: tune, answer, report, and measure for a plan.

In one process the peak memory of a cell would count what earlier cells left behind, and a cell that runs out of memory
would end the study. The process gets one order on stdin and writes events to stdout, one JSON line each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import msgspec
from msgspec.structs import replace

from peft_core import processes
from peft_core.child_main import PARENT_VARIABLE, CommandReader, run_child
from peft_core.errors import Cancelled, NoSpace, PeftDaemonError, is_full
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.tasks import OnProgress
from peft_evaluation.datasets import catalogue
from peft_evaluation.generation import SampleResult, generation_seconds
from peft_evaluation.journal import Journal
from peft_evaluation.runner import (
    EvaluateRequest,
    EvaluationEvent,
    answer_all,
    evaluation_folder,
    load_samples,
    report_answers,
)
from peft_evaluation.sample import SampleSet
from peft_evaluation.strategies import Sweep
from peft_evaluation.study.definition import StudyAnswering, StudyData
from peft_tuning.data.datasets import catalogue as tuning_catalogue
from peft_tuning.data.datasets.sources import DATA_FOLDER, SEED, DataLocations
from peft_tuning.events import TuneEvent
from peft_tuning.installation import Installation
from peft_tuning.job import FILE, TuneJob

if TYPE_CHECKING:
    from peft_tuning.run import TuneRequest

MODULE = "peft_evaluation.study.steps"
MEASURED_SAMPLES = 16
"""Questions that are answered to measure how long one takes."""
MAX_REASON_CHARS = 300


class TuneStep(msgspec.Struct, frozen=True, kw_only=True, tag="tune"):
    """Make the adapter of a cell and register it."""

    adapter: str
    data: StudyData
    job: TuneJob


class AnswerStep(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """Answer the questions of a table with these strategies, as far as they are not answered."""

    evaluation: str
    data: StudyData
    answering: StudyAnswering
    strategies: tuple[str, ...]
    sweep: Sweep
    command: str = ""
    ray: str | None = None


class ReportStep(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """Run the answers of a table that have tests, score all, and write the evaluation's report."""

    answers: AnswerStep


class MeasureStep(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Find out how much time and memory another step takes; nothing is learned or kept."""

    step: TuneStep | AnswerStep


StudyStep = TuneStep | AnswerStep | ReportStep | MeasureStep


class StepOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the process of a step is told."""

    settings: Settings
    paths: dict[str, str]
    """The folders of the installation, by their names in ``Paths``."""
    step: StudyStep

    @property
    def installation(self) -> Installation:
        """The installation that the step works in."""
        return Installation(
            settings=self.settings, paths=Paths(**{name: Path(folder) for name, folder in self.paths.items()})
        )


class StepMeasured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """Event: what a step was measured to take."""

    seconds: float
    """Of the training, or of all answers with one seed."""
    memory_bytes: int
    available_bytes: int = 0
    """0: not measured."""
    trainable_parameters: int = 0


class StepFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Event: the step ended with an error. It is the last one."""

    code: str
    reason: str


StepEvent = TuneEvent | EvaluationEvent | StepMeasured | StepFailed


class StepError(PeftDaemonError):
    """A step of a study failed, for a reason that concerns this step alone."""

    def __init__(self, reason: str, diagnostics: str = "") -> None:
        """``diagnostics`` is what its process wrote to stderr, if it ended without saying why."""
        self.diagnostics = diagnostics
        super().__init__(reason)


def run_step(order: StepOrder, on_event: OnProgress[StepEvent]) -> None:
    """Run a step in a process of its own and pass on its events.

    Raises StepError with the reason if it fails, Cancelled for Ctrl-C, after the step has saved what it goes on from,
    and NoSpace for a full disk, on which no other step would get far either.
    """
    failed: StepFailed | None = None
    with tempfile.TemporaryFile() as diagnostics:
        with _started(order, diagnostics) as process:
            try:
                for event in _events(process):
                    failed = event if isinstance(event, StepFailed) else failed
                    if failed is None:
                        on_event(event)
                code = process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                for _line in process.stdout or ():
                    pass
                raise Cancelled("interrupted", fix="The same command continues where it stopped") from None
        if failed is not None and failed.code == Cancelled.code:
            raise Cancelled(failed.reason, fix="The same command continues where it stopped")
        if failed is not None and failed.code == NoSpace.code:
            raise NoSpace(failed.reason, fix="Free some space; the same command continues where it stopped")
        if failed is not None:
            raise StepError(failed.reason)
        if code != 0:
            diagnostics.seek(0)
            text = diagnostics.read().decode(errors="replace")
            raise StepError(_end_of(code, text), text)


@contextlib.contextmanager
def _started(order: StepOrder, diagnostics: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of a step; it has ended after the block."""
    absolute = {name: str(Path(os.environ[name]).absolute()) for name in (DATA_FOLDER,) if os.environ.get(name)}
    process = processes.start(
        processes.python_module(MODULE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=diagnostics,
        environ={**os.environ, **absolute, PARENT_VARIABLE: str(os.getpid())},
        # Ctrl-C in a terminal goes to this process alone, which then ends the step in order.
        start_new_session=sys.platform != "win32",
    )
    try:
        assert process.stdin is not None  # noqa: S101  (PIPE was asked for)
        with contextlib.suppress(OSError):
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(OSError):
                stream.close()


def _events(process: subprocess.Popen[bytes]) -> Iterator[StepEvent]:
    decoder = msgspec.json.Decoder(StepEvent)
    for line in process.stdout or ():
        yield decoder.decode(line)


def _end_of(code: int, diagnostics: str) -> str:
    """Return in words how a process ended that did not say it."""
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out"
    lines = [line.strip() for line in diagnostics.splitlines() if line.strip()]
    return (lines[-1] if lines else f"its process ended with exit code {code}")[:MAX_REASON_CHARS]


def perform(step: StudyStep, installation: Installation, on_event: OnProgress[StepEvent]) -> None:
    """Do a step in this process; raises what tuning and evaluation raise."""
    match step:
        case TuneStep():
            _tune(step, installation, on_event)
        case AnswerStep():
            answer_all(evaluate_request(step, installation), installation, on_event)
        case ReportStep():
            request = evaluate_request(step.answers, installation)
            report_answers(request, load_samples(request, on_event), installation, on_event)
        case MeasureStep(step=TuneStep() as measured):
            _measure_tuning(measured, installation, on_event)
        case MeasureStep(step=AnswerStep() as measured):
            _measure_answers(measured, installation, on_event)


def evaluate_request(step: AnswerStep, installation: Installation) -> EvaluateRequest:
    """Return the evaluation that a step is a part of; examples are shown of those that tuning learns from."""

    def load(_on_progress: object) -> SampleSet:
        found = catalogue.load(step.data.name, _locations(step.data, installation), seed=SEED)
        return dataclasses.replace(found, pool=found.pool[: step.data.train])

    return EvaluateRequest(
        name=step.evaluation,
        load_items=load,
        strategies=step.strategies,
        sweep=step.sweep,
        decoding=step.data.decoding,
        limit=step.data.test,
        max_tokens=step.data.max_tokens,
        at_once=step.answering.at_once,
        allow_unsandboxed=step.answering.allow_unsandboxed,
        ray=step.ray,
        resume=True,
        command=(step.command,),
    )


def _tune_request(step: TuneStep, installation: Installation, *, resume: bool) -> TuneRequest:
    from peft_tuning.run import TuneRequest, default_threads  # noqa: PLC0415  (transformers' optimizers: seconds)
    from peft_tuning.trainer import resumed_threads  # noqa: PLC0415  (the same)

    begun = resumed_threads(installation.folder(step.adapter)) if resume else None
    threads = begun or step.job.threads or default_threads(installation.paths)
    return TuneRequest(
        name=step.adapter,
        job=replace(step.job, threads=threads),
        # Every seed of tuning learns from the same split: the questions are those of one evaluation.
        load_data=lambda _: tuning_catalogue.load(step.data.name, _locations(step.data, installation), seed=SEED),
        activate=False,
        gate_holes=0,  # the study's own questions judge it
        resume=resume,
    )


def _locations(data: StudyData, installation: Installation) -> DataLocations:
    path = None if data.path is None else Path(data.path)
    return DataLocations.resolve(installation.settings, installation.paths, data=path)


def _tune(step: TuneStep, installation: Installation, on_event: OnProgress[StepEvent]) -> None:
    from peft_tuning.run import run  # noqa: PLC0415  (transformers' optimizers: seconds)

    resume = (installation.folder(step.adapter) / FILE).exists()
    run(_tune_request(step, installation, resume=resume), installation, on_event)


def _measure_tuning(step: TuneStep, installation: Installation, on_event: OnProgress[StepEvent]) -> None:
    from peft_tuning.resources import make_plan  # noqa: PLC0415  (transformers' optimizers: seconds)
    from peft_tuning.run import check, prepare  # noqa: PLC0415  (the same)

    request = _tune_request(step, installation, resume=False)
    check(request, installation)
    made = make_plan(prepare(request, installation, request.load_data(on_event), on_event))
    on_event(
        StepMeasured(
            seconds=made.seconds,
            memory_bytes=made.peak_memory_bytes,
            available_bytes=made.available_bytes,
            trainable_parameters=made.trainable_parameters,
        )
    )


def _measure_answers(step: AnswerStep, installation: Installation, on_event: OnProgress[StepEvent]) -> None:
    """Answer a few questions in an evaluation of their own, which is deleted afterwards."""
    name = f"{step.evaluation}.plan"
    folder = evaluation_folder(installation, name)
    shutil.rmtree(folder, ignore_errors=True)
    everything = load_samples(evaluate_request(step, installation), on_event)
    few = min(len(everything.items), MEASURED_SAMPLES)
    try:
        measured = replace(step, evaluation=name, data=replace(step.data, test=few))
        answer_all(evaluate_request(measured, installation), installation, on_event)
        answered = list(Journal(folder / "answers.jsonl", SampleResult).read())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    on_event(
        StepMeasured(
            seconds=generation_seconds(answered) / few * len(everything.items),
            memory_bytes=max(each.memory_bytes for each in answered),
        )
    )


def _serve(commands: CommandReader, answers: BinaryIO) -> NoReturn:
    # Ignored in what a shell starts in the background, and inherited from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = msgspec.json.decode(commands.next(), type=StepOrder)

    def send(event: StepEvent) -> None:
        answers.write(msgspec.json.encode(event) + b"\n")
        answers.flush()

    try:
        perform(order.step, order.installation, send)
    except PeftDaemonError as error:
        send(StepFailed(code=error.code, reason=error.cause))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        send(StepFailed(code=Cancelled.code, reason="interrupted"))
        sys.exit(Cancelled.exit_code)
    except Exception as error:
        if not is_full(error):
            raise
        send(StepFailed(code=NoSpace.code, reason="the disk is full"))
        sys.exit(NoSpace.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    run_child(_serve)
