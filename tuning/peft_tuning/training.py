"""A run from a data set to an adapter folder, and on from where an earlier one was interrupted.

``preparing.prepare`` comes before, and ``planning.make_plan`` may look at what it gives. Registering the adapter, its
manifest and model card are in ``packaging``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerState, TrainingArguments

from peft_core.errors import Cancelled, Conflict
from peft_daemon.engines.torch.base_model import LoadedBase
from peft_daemon.models.catalogue import PromptFormats
from peft_tuning.callbacks import Milestones, Reporter, evaluated
from peft_tuning.checkpoints import Checkpoint, CheckpointStore, NoSpace, restore, write_folder
from peft_tuning.data.examples import DataSet
from peft_tuning.events import OnProgress, TrainingFinished
from peft_tuning.job import RunIdentity, TuneJob, load_identity, require_same_run, save_identity
from peft_tuning.memory import Interruption, PeakMemory, translate_failures
from peft_tuning.prepare import OPTIMIZER, PreparedRun, prepare
from peft_tuning.trainer import Steps, TuningTrainer

ADAPTER, CHECKPOINTS = "adapter", "checkpoints"


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What came of a run."""

    adapter: Path
    """Folder in PEFT's layout, written by the method."""
    identity: RunIdentity
    steps: int
    best_step: int
    best_loss: float | None
    """Validation loss of the weights in ``adapter``; None without a validation part: they are the last ones."""
    losses: tuple[tuple[int, float], ...]
    """(step, training loss)"""
    evaluations: tuple[tuple[int, float], ...]
    """(step, validation loss)"""
    stopped_early: bool
    seconds: float
    """Of this process; an interrupted run's earlier part is not in it."""
    peak_memory_bytes: int
    trainable_parameters: int


def tune(
    job: TuneJob,
    base: LoadedBase,
    data: DataSet,
    formats: PromptFormats,
    *,
    folder: Path,
    on_progress: OnProgress,
    resume: bool = False,
) -> TuneResult:
    """Prepare and train; see both."""
    return train(prepare(job, base, data, formats), folder, on_progress, resume=resume)


def train(prepared: PreparedRun, folder: Path, on_progress: OnProgress, *, resume: bool = False) -> TuneResult:
    """Fit the weights and write the best adapter to ``folder/adapter``.

    Raises Conflict when ``folder`` holds a run already, or with ``resume`` one that differs; Cancelled when the run
    was interrupted, with a checkpoint to go on from; OutOfMemory, NoSpace and TrainingDiverged.
    """
    job, began = prepared.job, time.monotonic()
    checkpoint = _begin(folder, prepared.identity, resume=resume)
    store = CheckpointStore(folder / CHECKPOINTS)
    with Interruption() as interruption, PeakMemory(prepared.device) as peak, translate_failures(job):
        parameters = prepared.method.trainable_parameters(prepared.model)
        milestones = Milestones(
            prepared.schedule,
            store,
            interruption,
            patience=job.patience,
            checkpoint_every_s=job.checkpoint_every_s,
            validated=bool(prepared.validation.examples),
        )
        arguments = _arguments(prepared, folder)
        arguments.eval_on_start = checkpoint is not None and _owes_evaluation(prepared, checkpoint)
        reporters = [
            Reporter(prepared.schedule, peak, on_progress, examples=len(prepared.train.examples), parameters=parameters)
        ]
        trainer = TuningTrainer(
            model=prepared.model,
            args=arguments,
            steps=Steps(prepared.train.examples, prepared.schedule),
            validation=prepared.validation.examples,
            schedule=prepared.schedule,
            forward=prepared.forward,
            store=store,
            interruption=interruption,
            callbacks=[milestones, *(reporters if arguments.process_index == 0 else [])],
        )
        if checkpoint is None:
            trainer.train()
        else:
            trainer.resume(checkpoint)
    state = trainer.state
    stopped = state.global_step < prepared.schedule.steps
    if interruption.requested and (stopped or _owed(prepared, state)):
        raise Cancelled(
            f"tuning was interrupted after step {state.global_step} of {prepared.schedule.steps}",
            fix="Give the same command with `--resume` to go on",
        )
    best_step = state.best_global_step or state.global_step
    if state.best_global_step is not None:
        restore(prepared.model, store.best(best_step))
    if arguments.process_index == 0:
        _write_adapter(prepared, folder / ADAPTER)
    seconds = time.monotonic() - began
    if arguments.process_index == 0:
        on_progress(
            TrainingFinished(
                step=state.global_step,
                best_step=best_step,
                best_loss=state.best_metric,
                seconds=seconds,
                stopped_early=stopped,
            )
        )
    return TuneResult(
        adapter=folder / ADAPTER,
        identity=prepared.identity,
        steps=state.global_step,
        best_step=best_step,
        best_loss=state.best_metric,
        losses=tuple((int(each["step"]), each["loss"]) for each in state.log_history if "loss" in each),
        evaluations=tuple(evaluated(state)),
        stopped_early=stopped,
        seconds=seconds,
        peak_memory_bytes=peak.peak,
        trainable_parameters=parameters,
    )


def resumed_threads(folder: Path) -> int:
    """CPU threads of the run in ``folder``, for a job that goes on with it; raises NotFound when there is none."""
    return load_identity(folder).threads


def _begin(folder: Path, identity: RunIdentity, *, resume: bool) -> Checkpoint | None:
    """Where to go on; None for a run that begins."""
    if resume:
        require_same_run(load_identity(folder), identity)
        return CheckpointStore(folder / CHECKPOINTS).latest()
    if int(os.environ.get("RANK", "0")) == 0:
        if (folder / ADAPTER).exists() or (folder / CHECKPOINTS).exists():
            raise Conflict(
                f"{folder} holds a run already",
                fix="Add `--resume` to go on with it, or delete that folder to start again",
            )
        save_identity(folder, identity)
    return None


def _arguments(prepared: PreparedRun, folder: Path) -> TrainingArguments:
    job, steps = prepared.job, prepared.schedule.steps
    on_cpu = prepared.device.type == "cpu"
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=steps,
        learning_rate=prepared.identity.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=int(job.warmup * steps),
        optim=OPTIMIZER,
        seed=job.seed,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and prepared.identity.processes > 1 else None,
        ddp_find_unused_parameters=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to=list(job.report_to) or "none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        activation_checkpointing=job.options.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if job.options.gradient_checkpointing else None,
    )


def _owes_evaluation(prepared: PreparedRun, checkpoint: Checkpoint) -> bool:
    return _owed(prepared, TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json")))


def _owed(prepared: PreparedRun, state: TrainerState) -> bool:
    """Whether the evaluation after the last step is still to be made: it was interrupted."""
    due = state.global_step in prepared.schedule.evaluations and bool(prepared.validation.examples)
    return due and state.global_step not in {step for step, _ in evaluated(state)}


def _write_adapter(prepared: PreparedRun, final: Path) -> None:
    full = NoSpace(
        f"the disk is full: the adapter could not be written to {final}",
        why="its checkpoint is complete and stays",
        fix="Free some space, then give the same command with `--resume`",
    )
    write_folder(final, lambda staged: prepared.method.save(prepared.model, staged), full=full)
