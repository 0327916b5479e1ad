"""Reports of a training run: events for the caller, and figures for the trackers that the user named."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import fmean

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from peft_core.tasks import OnProgress
from peft_tuning.checkpoints import TrainingState
from peft_tuning.events import CheckpointSaved, Evaluated, StepFinished, TrainingEvent, TrainingStarted, ignore
from peft_tuning.prepare import PreparedRun, is_main_process
from peft_tuning.resources import PeakMemory


class ProgressReporter:
    """Report what happens in a training loop, with ``torchrun`` in the main process only.

    Speed is measured over steps alone, without evaluations and checkpoints.
    """

    def __init__(
        self, run: PreparedRun, peak: PeakMemory, on_progress: OnProgress[TrainingEvent], folder: Path
    ) -> None:
        self._run, self._schedule, self._peak = run, run.schedule, peak
        self._on_progress: OnProgress[TrainingEvent] = on_progress if is_main_process() else ignore
        self._trackers = Trackers(run, folder) if run.job.report_to else None
        self._first_step = 0
        self._busy_s = self._evaluation_s = 0.0
        self._evaluations = 0
        self._began = time.monotonic()

    def training_started(self, state: TrainingState) -> None:
        """Report the size of the run and the step at which it continues."""
        self._first_step = state.step
        self._on_progress(
            TrainingStarted(
                steps=self._schedule.steps,
                first_step=state.step,
                examples=len(self._run.train.examples),
                trainable_parameters=self._run.method.trainable_parameters(self._run.model),
            )
        )

    def step_started(self) -> None:
        """Start the clock of a step."""
        self._began = time.monotonic()

    def step_finished(self, state: TrainingState) -> None:
        """Stop the clock and report the last step; an evaluation, if one is due, begins now."""
        now = time.monotonic()
        self._busy_s += now - self._began
        self._began = now
        entry, step, tokens = state.history[-1], state.step, self._schedule.tokens
        speed = sum(tokens[self._first_step : step]) / max(self._busy_s, 1e-9)
        evaluations_left = sum(due > step for due in self._schedule.evaluations)
        evaluation_s = self._evaluation_s / self._evaluations if self._evaluations else 0.0
        if self._trackers:
            self._trackers.log(state)
        self._on_progress(
            StepFinished(
                step=step,
                steps=self._schedule.steps,
                epoch=self._schedule.epoch(step),
                loss=entry.loss or 0.0,
                learning_rate=entry.learning_rate or 0.0,
                tokens_per_s=speed,
                memory_bytes=self._peak.peak,
                eta_s=sum(tokens[step:]) / max(speed, 1e-9) + evaluations_left * evaluation_s,
            )
        )

    def evaluated(self, state: TrainingState, loss: float) -> None:
        """Report the validation loss of the current step."""
        self._evaluation_s += time.monotonic() - self._began
        self._evaluations += 1
        if self._trackers:
            self._trackers.log(state)
        self._on_progress(Evaluated(step=state.step, loss=loss, best=state.best_step == state.step))

    def checkpoint_saved(self, state: TrainingState) -> None:
        """Report a checkpoint."""
        self._on_progress(CheckpointSaved(step=state.step))

    def close(self, state: TrainingState) -> None:
        """Let the trackers finish."""
        if self._trackers:
            self._trackers.close(state)


class Trackers:
    """The trackers of transformers that the user named, such as ``tensorboard``.

    Raises RuntimeError, with what to install, for a tracker that is not installed.
    """

    def __init__(self, run: PreparedRun, folder: Path) -> None:
        self._arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=run.schedule.steps,
            learning_rate=run.identity.learning_rate,
            seed=run.job.seed,
            report_to=list(run.job.report_to),
            use_cpu=run.device.type == "cpu",
        )
        self._state = TrainerState(is_world_process_zero=is_main_process())
        self._control, self._model = TrainerControl(), run.model
        classes = get_reporting_integration_callbacks(list(run.job.report_to))  # type: ignore[no-untyped-call]
        self._callbacks = [each() for each in classes]
        self._call("on_init_end")
        self._call("on_train_begin")

    def log(self, state: TrainingState) -> None:
        """Send the newest entry of the history."""
        entry = state.history[-1]
        self._state.global_step, self._state.epoch = entry.step, entry.epoch or 0.0
        self._call("on_log", logs=entry.figures)

    def close(self, state: TrainingState) -> None:
        """Send the mean training loss and end the run at every tracker."""
        losses = [loss for _step, loss in state.losses]
        if losses:
            self._call("on_log", logs={"train_loss": fmean(losses), "epoch": self._state.epoch})
        self._call("on_train_end")

    def _call(self, event: str, **values: object) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self._arguments, self._state, self._control, model=self._model, **values)
