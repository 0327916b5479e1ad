"""Checkpoints of a run: folders that are either complete or absent, even after a crash while they are written.

A checkpoint holds the trained weights (not the base's), optimizer, scheduler and the training state. Dropout needs no
stored generator: it is seeded by (seed, step). The position in the data is the step number. A folder is written under
another name, synced and renamed. The two newest checkpoints are kept, and the best weights that they name.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peft_core.errors import InvalidInput, NoSpace, is_full
from peft_core.files import PARTIAL_PREFIX, atomic_folder, file_sha256

MAX_CHECKPOINTS = 2
WEIGHTS, OPTIMIZER, SCHEDULER = "trained.safetensors", "optimizer.pt", "scheduler.pt"
TRAINER_STATE = "trainer_state.json"
"""Named as by transformers' Trainer, which wrote it in earlier versions."""
SUMMARY = "checkpoint.json"
_FILES = frozenset({WEIGHTS, OPTIMIZER, SCHEDULER, TRAINER_STATE})
_STEP, _BEST = "step-", "best-"


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The figures of a step, or those of an evaluation after it."""

    step: int
    epoch: float | None = None
    loss: float | None = None
    """Training loss, nats per answer token."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    eval_loss: float | None = None
    """Validation loss, nats per answer token."""

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name, without the step."""
        values = msgspec.structs.asdict(self)
        return {name: value for name, value in values.items() if name != "step" and value is not None}


class TrainingState(msgspec.Struct, kw_only=True):
    """The progress of a run, without tensors; the names in the file are those of transformers' Trainer."""

    step: int = msgspec.field(default=0, name="global_step")
    """Optimizer steps done."""
    best_step: int | None = msgspec.field(default=None, name="best_global_step")
    best_loss: float | None = msgspec.field(default=None, name="best_metric")
    """Lowest validation loss so far."""
    history: list[HistoryEntry] = msgspec.field(default_factory=list, name="log_history")
    seconds: float = 0.0
    """Time of all processes of the run until this was saved."""
    peak_memory_bytes: int = 0
    """Peak memory of all processes of the run until this was saved."""

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss) of all steps, oldest first."""
        return [(each.step, each.loss) for each in self.history if each.loss is not None]

    @property
    def evaluations(self) -> list[tuple[int, float]]:
        """(step, validation loss) of all evaluations, oldest first."""
        return [(each.step, each.eval_loss) for each in self.history if each.eval_loss is not None]

    def add_step(self, loss: float, learning_rate: float, gradient_norm: float, epoch: float) -> None:
        """Record that one more optimizer step is done."""
        self.step += 1
        self.history.append(
            HistoryEntry(step=self.step, epoch=epoch, loss=loss, learning_rate=learning_rate, grad_norm=gradient_norm)
        )

    def add_evaluation(self, loss: float) -> bool:
        """Record the validation loss of the current step; return whether it is the lowest so far."""
        epoch = self.history[-1].epoch if self.history else None
        self.history.append(HistoryEntry(step=self.step, epoch=epoch, eval_loss=loss))
        best = self.best_loss is None or loss < self.best_loss
        if best:
            self.best_step, self.best_loss = self.step, loss
        return best

    def is_exhausted(self, patience: int | None) -> bool:
        """Return whether the last ``patience`` evaluations were all worse than the best one before them."""
        if patience is None or self.best_step is None:
            return False
        return sum(step > self.best_step for step, _ in self.evaluations) >= patience


class CheckpointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The file that makes a folder a checkpoint."""

    step: int
    best_step: int | None
    """Step of the best weights so far, which are in a folder of their own."""
    best_sha256: str | None = None
    """sha256 of their file; None without any, and in checkpoints of earlier versions."""
    sha256: dict[str, str]
    """sha256 of every other file, by name."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    summary: CheckpointSummary

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.summary.step

    def weights(self) -> dict[str, Tensor]:
        """Load the trained weights by parameter name."""
        return load_file(self.folder / WEIGHTS)

    def state(self) -> TrainingState:
        """Load the progress of the run; files of earlier versions, which transformers wrote, can be read too."""
        return msgspec.json.decode((self.folder / TRAINER_STATE).read_bytes(), type=TrainingState)

    def load(self, name: str) -> Any:
        """Load ``optimizer.pt`` or ``scheduler.pt``; only plain values and tensors are accepted."""
        return torch.load(self.folder / name, map_location="cpu", weights_only=True)


class CheckpointStore:
    """The checkpoints of one run, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def latest(self) -> Checkpoint | None:
        """Return the newest complete and undamaged checkpoint; leftovers of a crash are skipped."""
        for folder in self._folders(_STEP):
            if (summary := _read(folder)) is not None and self._is_intact(folder, summary):
                return Checkpoint(folder, summary)
        return None

    def _is_intact(self, folder: Path, summary: CheckpointSummary) -> bool:
        """Whether all files are there that a run goes on from, as they were written."""
        if not summary.sha256.keys() >= _FILES:
            return False
        if not all(_matches(folder / name, sha) for name, sha in summary.sha256.items()):
            return False
        if summary.best_step is None:
            return True
        best = self._best(summary.best_step) / WEIGHTS
        return best.is_file() if summary.best_sha256 is None else _matches(best, summary.best_sha256)

    def save(
        self,
        state: TrainingState,
        *,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint, then delete older ones that are not needed; raises NoSpace without deleting any."""

        def write(folder: Path) -> None:
            save_file(_contiguous(weights), folder / WEIGHTS)
            (folder / OPTIMIZER).write_bytes(_serialized(optimizer))
            (folder / SCHEDULER).write_bytes(_serialized(scheduler))
            (folder / TRAINER_STATE).write_bytes(msgspec.json.encode(state))
            sha = {each.name: file_sha256(each) for each in sorted(folder.iterdir())}
            summary = CheckpointSummary(
                step=state.step, best_step=state.best_step, best_sha256=self._best_sha256(state.best_step), sha256=sha
            )
            (folder / SUMMARY).write_bytes(msgspec.json.encode(summary))

        folder = self._publish(f"{_STEP}{state.step:07}", write)
        self._prune(newest=folder.name)
        return folder

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep these weights as long as a checkpoint names ``step`` as its best; raises NoSpace."""
        self._publish(self._best(step).name, lambda folder: save_file(_contiguous(weights), folder / WEIGHTS))

    def best(self, step: int) -> dict[str, Tensor]:
        """Load the weights kept for ``step``."""
        return load_file(self._best(step) / WEIGHTS)

    def clear(self) -> None:
        """Delete all checkpoints of the run."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _best(self, step: int) -> Path:
        return self.root / f"{_BEST}{step:07}"

    def _folders(self, prefix: str) -> list[Path]:
        """Return the folders with this prefix, newest first."""
        return sorted(self.root.glob(f"{prefix}*"), reverse=True) if self.root.is_dir() else []

    def _publish(self, name: str, write: Callable[[Path], None]) -> Path:
        full = NoSpace(
            f"the disk is full: no checkpoint could be written to {self.root}",
            why="the previous checkpoint is complete and stays",
            fix="Free some space, then give the same command with `--resume`",
        )
        write_folder(self.root / name, write, full=full)
        return self.root / name

    def _best_sha256(self, step: int | None) -> str | None:
        best = None if step is None else self._best(step) / WEIGHTS
        return file_sha256(best) if best is not None and best.is_file() else None

    def _prune(self, newest: str) -> None:
        """Delete what no run goes on from; a folder after ``newest`` is damaged, or the run had gone on from it."""
        kept = [folder for folder in self._folders(_STEP) if folder.name <= newest][:MAX_CHECKPOINTS]
        summaries = [_read(folder) for folder in kept]
        best = {self._best(each.best_step) for each in summaries if each is not None and each.best_step is not None}
        for folder in (*self._folders(_STEP), *self._folders(_BEST), *self._folders(PARTIAL_PREFIX)):
            if folder not in best and folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training changes, by name, on the CPU."""
    return {name: each.detach().cpu() for name, each in model.named_parameters() if each.requires_grad}


def restore(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy saved weights into the model's trained parameters; raises InvalidInput if they do not match."""
    own = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if own.keys() != weights.keys() or any(own[name].shape != each.shape for name, each in weights.items()):
        raise InvalidInput(
            "the checkpoint holds other weights than this run trains",
            fix="Start again without `--resume`",
        )
    with torch.no_grad():
        for name, each in weights.items():
            own[name].copy_(each)


def _serialized(values: Mapping[str, Any]) -> bytes:
    """Return what ``torch.save`` writes, which does not tell why a write failed if it writes a file itself."""
    buffer = io.BytesIO()
    torch.save(dict(values), buffer)
    return buffer.getvalue()


def _contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.contiguous() for name, each in weights.items()}


def _read(folder: Path) -> CheckpointSummary | None:
    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=CheckpointSummary)
    except (OSError, ValueError, RecursionError):
        return None


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def write_folder(final: Path, write: Callable[[Path], None], *, full: NoSpace) -> None:
    """Let ``write`` fill a folder, which then replaces ``final`` in one step, if it is complete.

    Raises ``full`` when the disk is full.
    """
    try:
        with atomic_folder(final) as staged:
            write(staged)
            shutil.rmtree(final, ignore_errors=True)
    except Exception as error:
        if is_full(error):
            raise full from None
        raise
