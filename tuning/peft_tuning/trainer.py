"""transformers' Trainer with this project's data order, loss, evaluation and checkpoints; accelerate is underneath.

To the Trainer a run is one pass over a data set whose items are whole optimizer steps: its step number is the data
position, and skipping to it is exact. What happens within a step - forward passes over rows, the share of each
process, the mean over all answer tokens of the step - is here. Dropout is seeded by (seed, step, process), so a
resumed run needs no saved generator. Does not cover when things happen: see ``callbacks``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput

from peft_core.errors import PeftDaemonError
from peft_tuning.batch import (
    Collator,
    StepSchedule,
    response_loss,
)
from peft_tuning.checkpoints import OPTIMIZER, SCHEDULER, Checkpoint, CheckpointStore, restore, trained_weights
from peft_tuning.encode import EncodedExample
from peft_tuning.memory import Interruption


class TrainingDiverged(PeftDaemonError):
    """The loss or its gradient is no number any more."""

    code, status, exit_code = "diverged", 500, 10


class Steps(Dataset[tuple[EncodedExample, ...]]):
    """The examples of each step of a run."""

    def __init__(self, examples: Sequence[EncodedExample], schedule: StepSchedule) -> None:
        self._examples, self._schedule = examples, schedule

    def __len__(self) -> int:
        return self._schedule.steps

    def __getitem__(self, step: int) -> tuple[EncodedExample, ...]:
        return tuple(self._examples[index] for index in self._schedule.batches[step])


class TuningTrainer(Trainer):
    """Trains ``model`` in place; see the module."""

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        steps: Steps,
        validation: Sequence[EncodedExample],
        schedule: StepSchedule,
        forward: Collator,
        store: CheckpointStore,
        interruption: Interruption,
        callbacks: list[TrainerCallback],
    ) -> None:
        # One process drives one device; with several, transformers would replicate the model in threads.
        super().__init__(model=model, args=args, train_dataset=steps, callbacks=callbacks)
        self.args._n_gpu = min(self.args._n_gpu, 1)
        self.remove_callback(PrinterCallback)
        self._trained = model
        self._steps, self._schedule, self._forward = steps, schedule, forward
        self._validation = forward.cut(validation)
        self._store, self._interruption = store, interruption
        self._resumed: Checkpoint | None = None

    def resume(self, checkpoint: Checkpoint) -> TrainOutput:
        """Go on after ``checkpoint``; an evaluation that was interrupted is made first."""
        self._resumed = checkpoint
        return self.train(resume_from_checkpoint=str(checkpoint.folder))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One step per item; every process gets whole steps and takes its share."""
        return DataLoader(self._steps, batch_size=1, collate_fn=_only)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Gradients of one step; returns the mean loss over its answer tokens (this process's part, scaled so)."""
        model.train()
        step, processes, rank = self.state.global_step, self.args.world_size, self.args.process_index
        torch.manual_seed(step_seed(self.args.seed, step, rank))
        scale = processes / sum(len(example.response) for example in inputs)
        total = torch.zeros((), device=self.args.device)
        own = self._forward.cut(inputs[rank::processes])
        if not own:
            # Fewer examples than processes: this one still has to take part, with a gradient of nothing.
            own, scale = self._forward.cut(inputs[:1]), 0.0
        for number, row in enumerate(own, start=1):
            with nullcontext() if number == len(own) else self.accelerator.no_sync(model):
                loss = response_loss(self._trained, self._forward.batch(row), forward=model) * scale
                self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise _diverged("loss", step + 1)
        return total

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """The mean loss over all answer tokens of the validation part; empty when interrupted.

        In a run of several processes each takes a share of the rows.
        """
        self._trained.eval()
        rank, processes = self.args.process_index, self.args.world_size
        total = 0.0
        with torch.no_grad():
            for row in self._validation[rank::processes]:
                if processes == 1 and self._interruption.requested:
                    self.control.should_evaluate = False
                    self.control.should_save = self.control.should_training_stop = True
                    return {}
                total += response_loss(self._trained, self._forward.batch(row)).item()
        if processes > 1:
            total = float(self.accelerator.reduce(torch.tensor(total, device=self.args.device)).item())
        tokens = sum(len(example.response) for row in self._validation for example in row.examples)
        metrics = {"eval_loss": total / tokens}
        if not math.isfinite(metrics["eval_loss"]):
            raise _diverged("validation loss", self.state.global_step)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers does, with this project's epochs; raises TrainingDiverged for a gradient of NaN."""
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise _diverged("gradient", self.state.global_step)
        self.state.epoch = self._schedule.epoch(self.state.global_step)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate would be for padded batches."""
        return 0

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # a resumed run may have been over but for its last evaluation
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        optimizer, scheduler = self._stepping()
        if self.args.process_index == 0:
            self._store.save(
                self.state.global_step,
                weights=trained_weights(self._trained),
                optimizer=optimizer.state_dict(),
                scheduler=scheduler.state_dict(),
                write_state=lambda path: self.state.save_to_json(str(path)),
                best_step=self.state.best_global_step,
            )
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self._trained, self._from(resume_from_checkpoint).weights())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            optimizer, scheduler = self._stepping()
            optimizer.load_state_dict(self._from(checkpoint).load(OPTIMIZER))
            scheduler.load_state_dict(self._from(checkpoint).load(SCHEDULER))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: every step seeds its own."""

    def _stepping(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """What takes the steps; made when training begins."""
        if self.optimizer is None or self.lr_scheduler is None:
            raise RuntimeError("training has not begun")
        return self.optimizer, self.lr_scheduler

    def _from(self, folder: str) -> Checkpoint:
        if self._resumed is None or self._resumed.folder != Path(folder):
            raise ValueError("resume with `resume`")
        return self._resumed


def step_seed(seed: int, step: int, rank: int) -> int:
    """What dropout of a step is seeded with."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])


def _only(items: list[tuple[EncodedExample, ...]]) -> tuple[EncodedExample, ...]:
    return items[0]


def _diverged(what: str, step: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"the {what} is not a number any more at step {step}",
        why="training diverged; nothing was registered",
        fix="Start again with a lower `--learning-rate`",
    )
