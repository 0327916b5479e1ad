"""The training loop: from a prepared run, or from where an earlier run was interrupted, to an adapter folder.

A run is a sequence of optimizer steps, and each step is a function of the seed, its number and the weights before it.
Dropout is seeded again for every step, and the number of a step decides its examples. Therefore a resumed run ends with
the same bytes as an uninterrupted one, without saving the state of any random generator.

``prepare.prepare`` comes before the loop; ``model_card`` describes the result; ``run`` registers it.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn
from transformers.optimization import Adafactor, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import get_parameter_names

from peft_core.errors import Cancelled, Conflict, NoSpace, PeftDaemonError
from peft_core.tasks import OnProgress
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning.batch import response_loss
from peft_tuning.checkpoints import (
    OPTIMIZER,
    SCHEDULER,
    Checkpoint,
    CheckpointStore,
    TrainingState,
    restore,
    trained_weights,
    write_folder,
)
from peft_tuning.data.examples import DataSet
from peft_tuning.events import TrainingEvent, TrainingFinished
from peft_tuning.job import RunIdentity, TuneJob, load_identity, require_same_run, save_identity
from peft_tuning.prepare import PreparedRun, is_main_process, prepare
from peft_tuning.reporting import ProgressReporter
from peft_tuning.resources import PeakMemory, translate_failures

ADAPTER, CHECKPOINTS = "adapter", "checkpoints"
MAX_GRADIENT_NORM = 1.0


class TrainingDiverged(PeftDaemonError):
    """The loss or its gradient is not a finite number."""

    code, status, exit_code = "diverged", 500, 10


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """The result of a finished run."""

    adapter: Path
    """Folder in PEFT's layout, written by the method."""
    identity: RunIdentity
    steps: int
    best_step: int
    best_loss: float | None
    """Validation loss of the weights in ``adapter``; None without a validation part, when they are the last ones."""
    losses: tuple[tuple[int, float], ...]
    """(step, training loss) of every step."""
    evaluations: tuple[tuple[int, float], ...]
    """(step, validation loss) of every evaluation."""
    stopped_early: bool
    seconds: float
    """Time of this process and of earlier parts of an interrupted run, as far as they were saved."""
    peak_memory_bytes: int
    trainable_parameters: int


def tune(
    job: TuneJob,
    base: LoadedBase,
    data: DataSet,
    formats: PromptFormats,
    *,
    folder: Path,
    on_progress: OnProgress[TrainingEvent],
    resume: bool = False,
) -> TuneResult:
    """Prepare a run and train it; see ``prepare`` and ``train`` for the errors."""
    return train(prepare(job, base, data, formats), folder, on_progress, resume=resume)


def train(
    run: PreparedRun, folder: Path, on_progress: OnProgress[TrainingEvent], *, resume: bool = False
) -> TuneResult:
    """Fit the trainable weights and write the best adapter to ``folder/adapter``.

    Raises Conflict if ``folder`` holds a run already, or with ``resume`` another run; Cancelled if the run was
    interrupted, with a checkpoint from which it can be resumed; OutOfMemory, NoSpace and TrainingDiverged.
    """
    began = saved_at = time.monotonic()
    checkpoint = _open_run_folder(folder, run.identity, resume=resume)
    store = CheckpointStore(folder / CHECKPOINTS)
    with Interruption() as interruption, PeakMemory(run.device) as peak, translate_failures(run.job):
        reporter = ProgressReporter(run, peak, on_progress, folder)
        optimization = Optimization(run)
        state = TrainingState() if checkpoint is None else optimization.restore(checkpoint)
        earlier_s, earlier_peak = state.seconds, state.peak_memory_bytes
        reporter.training_started(state)

        stopping = False
        if checkpoint is not None and _is_evaluation_missing(run, state):
            stopping = not _evaluate(optimization, state, store, reporter, interruption)
        while not stopping and state.step < run.schedule.steps and not state.is_exhausted(run.job.patience):
            reporter.step_started()
            figures = optimization.step(state.step)
            epoch = run.schedule.epoch(state.step + 1)
            state.add_step(figures.loss, figures.learning_rate, figures.gradient_norm, epoch)
            reporter.step_finished(state)

            stopping = interruption.requested_anywhere()  # an evaluation that is due is made when the run is resumed
            due = state.step in run.schedule.evaluations
            if due and run.validation.examples and not stopping:
                stopping = not _evaluate(optimization, state, store, reporter, interruption)
            if due or stopping or time.monotonic() - saved_at > run.job.checkpoint_every_s:
                state.seconds = earlier_s + time.monotonic() - began
                state.peak_memory_bytes = max(earlier_peak, peak.peak)
                optimization.save(state, store)
                saved_at = time.monotonic()
                reporter.checkpoint_saved(state)
        reporter.close(state)

    finished = state.step == run.schedule.steps
    if interruption.requested and (not finished or _is_evaluation_missing(run, state)):
        raise Cancelled(
            f"tuning was interrupted after step {state.step} of {run.schedule.steps}",
            fix="Give the same command with `--resume` to continue",
        )
    best_step = state.best_step or state.step
    if state.best_step is not None:
        restore(run.model, store.best(state.best_step))
    if is_main_process():
        _write_adapter(run, folder / ADAPTER)
    seconds = earlier_s + time.monotonic() - began
    if is_main_process():
        on_progress(
            TrainingFinished(
                step=state.step,
                best_step=best_step,
                best_loss=state.best_loss,
                seconds=seconds,
                stopped_early=not finished,
            )
        )
    return TuneResult(
        adapter=folder / ADAPTER,
        identity=run.identity,
        steps=state.step,
        best_step=best_step,
        best_loss=state.best_loss,
        losses=tuple(state.losses),
        evaluations=tuple(state.evaluations),
        stopped_early=not finished,
        seconds=seconds,
        peak_memory_bytes=max(earlier_peak, peak.peak),
        trainable_parameters=run.method.trainable_parameters(run.model),
    )


def resumed_threads(folder: Path) -> int:
    """Return the CPU threads of the run in ``folder``, for a job that resumes it.

    Raises NotFound without a run.
    """
    return load_identity(folder).threads


@dataclass(frozen=True)
class StepFigures:
    """The figures of one optimizer step."""

    loss: float
    """Nats per token with loss, over all examples of the step."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float


class Optimization:
    """The model with its optimizer and its learning-rate schedule, in one process or in several.

    With several processes (``torchrun``) each computes a share of every step, and gradients are averaged.
    """

    def __init__(self, run: PreparedRun) -> None:
        self._run = run
        on_cpu = run.device.type == "cpu"
        handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=False)]
        if on_cpu and run.identity.processes > 1:
            handlers.append(InitProcessGroupKwargs(backend="gloo"))
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=handlers)
        model: Any = run.model
        if run.job.options.gradient_checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self._model: nn.Module = self._accelerator.prepare_model(run.model)
        self._optimizer = Adafactor(  # type: ignore[no-untyped-call]
            _parameter_groups(run.model), lr=run.identity.learning_rate, scale_parameter=False, relative_step=False
        )
        steps = run.schedule.steps
        self._scheduler = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
            self._optimizer, int(run.job.warmup * steps), steps
        )
        self._validation = run.collator.split(run.validation.examples)

    def step(self, number: int) -> StepFigures:
        """Take optimizer step ``number`` (from 0) on its examples; raises TrainingDiverged.

        The loss of the step is the weighted mean over all its tokens with loss, in all forward passes and processes.
        """
        examples = self._run.examples_of(number)
        processes, rank = self._accelerator.num_processes, self._accelerator.process_index
        scale = processes / sum(example.loss_weight for example in examples)
        own = self._run.collator.split(examples[rank::processes])
        if not own:
            # With fewer examples than processes, this one must still take part, with a zero gradient.
            own, scale = self._run.collator.split(examples[:1]), 0.0

        self._model.train()
        torch.manual_seed(step_seed(self._run.job.seed, number, rank))
        total = torch.zeros((), device=self._run.device)
        for index, micro_batch in enumerate(own, start=1):
            with nullcontext() if index == len(own) else self._accelerator.no_sync(self._model):
                tensors = self._run.collator.tensors(micro_batch)
                loss = response_loss(self._run.model, tensors, forward=self._model) * scale
                loss.backward()
            total += loss.detach()
        if not torch.isfinite(total):
            raise _diverged("loss", number + 1)
        norm = float(nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRADIENT_NORM))
        if not math.isfinite(norm):
            raise _diverged("gradient", number + 1)

        learning_rate = self._scheduler.get_last_lr()[0]
        self._optimizer.step()  # type: ignore[no-untyped-call]
        self._scheduler.step()
        self._model.zero_grad()
        mean = self._accelerator.reduce(total, "mean") if processes > 1 else total
        return StepFigures(float(mean.item()), norm, float(learning_rate))

    def validation_loss(self, step: int, is_interrupted: Callable[[], bool]) -> float | None:
        """Return the mean loss over all tokens with loss of the validation part; None if interrupted meanwhile.

        With several processes, each computes a share of the forward passes, and none can be interrupted.
        """
        processes, rank = self._accelerator.num_processes, self._accelerator.process_index
        self._run.model.eval()
        total = 0.0
        with torch.no_grad():
            for micro_batch in self._validation[rank::processes]:
                if processes == 1 and is_interrupted():
                    return None
                total += response_loss(self._run.model, self._run.collator.tensors(micro_batch)).item()
        if processes > 1:
            total = float(self._accelerator.reduce(torch.tensor(total, device=self._run.device)).item())
        mean = total / sum(example.loss_weight for example in self._run.validation.examples)
        if not math.isfinite(mean):
            raise _diverged("validation loss", step)
        return mean

    def save(self, state: TrainingState, store: CheckpointStore) -> None:
        """Write a checkpoint, in one process while the others wait; raises NoSpace."""
        if is_main_process():
            store.save(
                state,
                weights=trained_weights(self._run.model),
                optimizer=self._optimizer.state_dict(),
                scheduler=self._scheduler.state_dict(),
            )
        self._accelerator.wait_for_everyone()

    def restore(self, checkpoint: Checkpoint) -> TrainingState:
        """Load weights, optimizer and learning-rate schedule; return the progress of the run."""
        restore(self._run.model, checkpoint.weights())
        self._optimizer.load_state_dict(checkpoint.load(OPTIMIZER))
        self._scheduler.load_state_dict(checkpoint.load(SCHEDULER))
        return checkpoint.state()

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained weights by parameter name."""
        return trained_weights(self._run.model)


class Interruption:
    """Turn SIGTERM and Ctrl-C into a request to stop after the current step, for a ``with`` block.

    The first signal only sets ``requested``; a second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handlers_before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers_before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def requested_anywhere(self) -> bool:
        """Return whether any process of the run was asked to stop, so that all stop at the same step."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self.requested
        nccl = torch.distributed.get_backend() == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
        asked = torch.tensor(int(self.requested), device=device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _request(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the dropout of one step in one process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])


def _open_run_folder(folder: Path, identity: RunIdentity, *, resume: bool) -> Checkpoint | None:
    """Return the checkpoint from which to resume; None for a new run."""
    if resume:
        require_same_run(load_identity(folder), identity)
        return CheckpointStore(folder / CHECKPOINTS).latest()
    if is_main_process():
        if (folder / ADAPTER).exists() or (folder / CHECKPOINTS).exists():
            raise Conflict(
                f"{folder} holds a run already",
                fix="Add `--resume` to continue it, or delete that folder to start again",
            )
        save_identity(folder, identity)
    return None


def _evaluate(
    optimization: Optimization,
    state: TrainingState,
    store: CheckpointStore,
    reporter: ProgressReporter,
    interruption: Interruption,
) -> bool:
    """Evaluate, and keep the weights if they are the best so far; return False if interrupted meanwhile."""
    loss = optimization.validation_loss(state.step, lambda: interruption.requested)
    if loss is None:
        return False
    if state.add_evaluation(loss) and is_main_process():
        store.save_best(state.step, optimization.weights())
    reporter.evaluated(state, loss)
    return True


def _is_evaluation_missing(run: PreparedRun, state: TrainingState) -> bool:
    """Whether the evaluation after the last step is missing because it was interrupted."""
    due = state.step in run.schedule.evaluations and bool(run.validation.examples)
    return due and state.step not in {step for step, _ in state.evaluations}


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Split the trained parameters as transformers' Trainer does.

    There is no weight decay; the two groups keep the order of the optimizer's state in checkpoints.
    """
    pattern = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    first = set(get_parameter_names(model, [nn.LayerNorm], pattern))  # type: ignore[no-untyped-call]
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    return [
        {"params": [each for name, each in trained if (name in first) is wanted], "weight_decay": 0.0}
        for wanted in (True, False)
    ]


def _write_adapter(run: PreparedRun, final: Path) -> None:
    full = NoSpace(
        f"the disk is full: the adapter could not be written to {final}",
        why="its checkpoint is complete and stays",
        fix="Free some space, then give the same command with `--resume`",
    )
    write_folder(final, lambda staged: run.method.save(run.model, staged), full=full)


def _diverged(figure: str, step: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"the {figure} is not a finite number at step {step}",
        why="training diverged; nothing was registered",
        fix="Start again with a lower `--learning-rate`",
    )
