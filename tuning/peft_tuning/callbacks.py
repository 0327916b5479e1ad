"""When a run evaluates, saves and stops, and what it tells about itself. Does not cover how any of these is done."""

from __future__ import annotations

import time
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from peft_tuning.batch import StepSchedule
from peft_tuning.checkpoints import CheckpointStore, trained_weights
from peft_tuning.events import CheckpointSaved, Evaluated, OnProgress, StepFinished, TrainingStarted
from peft_tuning.memory import Interruption, PeakMemory


class Milestones(TrainerCallback):
    """Evaluations and checkpoints at the schedule's steps, every few minutes, and when the run is interrupted.

    The best weights are kept here, by their validation loss, as this works for every method alike.
    """

    def __init__(
        self,
        schedule: StepSchedule,
        store: CheckpointStore,
        interruption: Interruption,
        *,
        patience: int | None,
        checkpoint_every_s: float,
        validated: bool,
    ) -> None:
        self._schedule, self._store, self._interruption = schedule, store, interruption
        self._patience, self._every, self._validated = patience, checkpoint_every_s, validated
        self._saved_at = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run that had ended early before it was interrupted does not go on."""
        if is_exhausted(state, self._patience):
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide what follows a step."""
        due = state.global_step in self._schedule.evaluations
        control.should_evaluate = due and self._validated
        control.should_save = due or time.monotonic() - self._saved_at > self._every
        if self._interruption.agreed():
            # An evaluation that is due is made when the run is resumed.
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Keep the weights if they are the best so far."""
        loss: float = kwargs["metrics"]["eval_loss"]
        model: nn.Module = kwargs["model"]
        if state.best_metric is None or loss < state.best_metric:
            state.best_metric, state.best_global_step = loss, state.global_step
            if state.is_world_process_zero:
                self._store.save_best(state.global_step, trained_weights(model))
        if is_exhausted(state, self._patience):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock anew."""
        self._saved_at = time.monotonic()


class Reporter(TrainerCallback):
    """Turns the Trainer's calls into events."""

    def __init__(
        self, schedule: StepSchedule, peak: PeakMemory, on_progress: OnProgress, *, examples: int, parameters: int
    ) -> None:
        self._schedule, self._peak, self._tell = schedule, peak, on_progress
        self._examples, self._parameters = examples, parameters
        self._first = 0
        self._busy_s = self._evaluation_s = 0.0
        self._evaluations = 0
        self._began = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell that training begins."""
        self._first = state.global_step
        self._tell(
            TrainingStarted(
                steps=self._schedule.steps,
                first_step=self._first,
                examples=self._examples,
                trainable_parameters=self._parameters,
            )
        )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of a step: evaluations and checkpoints do not count as training."""
        self._began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop it; an evaluation, if one is due, begins now."""
        now = time.monotonic()
        self._busy_s += now - self._began
        self._began = now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Tell about a step."""
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        step, tokens = state.global_step, self._schedule.tokens
        speed = sum(tokens[self._first : step]) / max(self._busy_s, 1e-9)
        evaluations = sum(due > step for due in self._schedule.evaluations)
        each_s = self._evaluation_s / self._evaluations if self._evaluations else 0.0
        self._tell(
            StepFinished(
                step=step,
                steps=self._schedule.steps,
                epoch=self._schedule.epoch(step),
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                tokens_per_s=speed,
                memory_bytes=self._peak.peak,
                eta_s=sum(tokens[step:]) / max(speed, 1e-9) + evaluations * each_s,
            )
        )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Tell about an evaluation."""
        self._evaluation_s += time.monotonic() - self._began
        self._evaluations += 1
        best = state.best_global_step == state.global_step
        self._tell(Evaluated(step=state.global_step, loss=kwargs["metrics"]["eval_loss"], best=best))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell about a checkpoint."""
        self._tell(CheckpointSaved(step=state.global_step))


def evaluated(state: TrainerState) -> list[tuple[int, float]]:
    """(step, validation loss) of all evaluations, oldest first."""
    return [(int(each["step"]), each["eval_loss"]) for each in state.log_history if "eval_loss" in each]


def is_exhausted(state: TrainerState, patience: int | None) -> bool:
    """Whether the last ``patience`` evaluations were all worse than the best before them."""
    if patience is None or state.best_global_step is None:
        return False
    return sum(step > state.best_global_step for step, _ in evaluated(state)) >= patience
