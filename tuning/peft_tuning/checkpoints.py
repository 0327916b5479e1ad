"""Where a run stands, on disk: folders that are either complete or absent, whatever happens while they are written.

A checkpoint holds the trained weights alone, optimizer, scheduler and the trainer's own state. Dropout needs no stored
generator: each step's is seeded by (seed, step). The data position is the step number. Folders are written beside
their place, synced and renamed; the two newest stay, and every ``best`` one of them names. Does not cover when
checkpoints are made, nor the final adapter.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peft_core.errors import InvalidInput, PeftDaemonError
from peft_core.files import PARTIAL_PREFIX, atomic_folder, file_sha256

KEPT = 2
WEIGHTS, OPTIMIZER, SCHEDULER = "trained.safetensors", "optimizer.pt", "scheduler.pt"
TRAINER_STATE = "trainer_state.json"
"""Named as transformers' Trainer looks for it."""
SUMMARY = "checkpoint.json"
_STEP, _BEST = "step-", "best-"


class NoSpace(PeftDaemonError):
    """The disk is full; what was saved before is untouched."""

    code, status, exit_code = "no_space", 507, 9


class CheckpointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a folder a checkpoint."""

    step: int
    best_step: int | None
    """Step of the best weights so far; they lie in a folder of their own."""
    sha256: dict[str, str]
    """Of every other file."""


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
        """The trained weights by parameter name."""
        return load_file(self.folder / WEIGHTS)

    def load(self, name: str) -> Any:
        """The state in ``optimizer.pt`` or ``scheduler.pt``; only plain values and tensors are accepted."""
        return torch.load(self.folder / name, map_location="cpu", weights_only=True)


class CheckpointStore:
    """The checkpoints of one run, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint whose files are what was written; leftovers of a crash are passed over."""
        for folder in self._folders(_STEP):
            summary = _read(folder)
            if summary is None or not all(_matches(folder / name, sha) for name, sha in summary.sha256.items()):
                continue
            if summary.best_step is None or self._best(summary.best_step).is_dir():
                return Checkpoint(folder, summary)
        return None

    def save(
        self,
        step: int,
        *,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        write_state: Callable[[Path], None],
        best_step: int | None,
    ) -> Path:
        """Write a checkpoint, then drop what is no longer needed; raises NoSpace and leaves the older ones alone."""

        def write(folder: Path) -> None:
            save_file(_contiguous(weights), folder / WEIGHTS)
            torch.save(dict(optimizer), folder / OPTIMIZER)
            torch.save(dict(scheduler), folder / SCHEDULER)
            write_state(folder / TRAINER_STATE)
            sha = {each.name: file_sha256(each) for each in sorted(folder.iterdir())}
            summary = CheckpointSummary(step=step, best_step=best_step, sha256=sha)
            (folder / SUMMARY).write_bytes(msgspec.json.encode(summary))

        folder = self._publish(f"{_STEP}{step:07}", write)
        self._prune()
        return folder

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep these weights for as long as a checkpoint names ``step`` as its best; raises NoSpace."""
        self._publish(self._best(step).name, lambda folder: save_file(_contiguous(weights), folder / WEIGHTS))

    def best(self, step: int) -> dict[str, Tensor]:
        """The weights kept for ``step``."""
        return load_file(self._best(step) / WEIGHTS)

    def clear(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _best(self, step: int) -> Path:
        return self.root / f"{_BEST}{step:07}"

    def _folders(self, prefix: str) -> list[Path]:
        """Newest first."""
        return sorted(self.root.glob(f"{prefix}*"), reverse=True) if self.root.is_dir() else []

    def _publish(self, name: str, write: Callable[[Path], None]) -> Path:
        full = NoSpace(
            f"the disk is full: no checkpoint could be written to {self.root}",
            why="the previous checkpoint is complete and stays",
            fix="Free some space, then give the same command with `--resume`",
        )
        write_folder(self.root / name, write, full=full)
        return self.root / name

    def _prune(self) -> None:
        kept = self._folders(_STEP)[:KEPT]
        summaries = [_read(folder) for folder in kept]
        best = {self._best(each.best_step) for each in summaries if each is not None and each.best_step is not None}
        for folder in (*self._folders(_STEP)[KEPT:], *self._folders(_BEST), *self._folders(PARTIAL_PREFIX)):
            if folder not in best:
                shutil.rmtree(folder, ignore_errors=True)


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name, on the CPU."""
    return {name: each.detach().cpu() for name, each in model.named_parameters() if each.requires_grad}


def restore(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy saved weights into the model's trained parameters; raises InvalidInput when they are not the same ones."""
    own = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if own.keys() != weights.keys() or any(own[name].shape != each.shape for name, each in weights.items()):
        raise InvalidInput(
            "the checkpoint holds other weights than this run trains",
            fix="Start again without `--resume`",
        )
    with torch.no_grad():
        for name, each in weights.items():
            own[name].copy_(each)


def is_disk_full(error: BaseException) -> bool:
    """Whether a failed write failed for want of space; torch and safetensors say so in their own ways."""
    full = {errno.ENOSPC, errno.EDQUOT}
    if isinstance(error, OSError) and error.errno in full:
        return True
    text = str(error).lower()
    return "no space left" in text or "quota exceeded" in text or "os error 28" in text


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
    """Let ``write`` fill a folder that appears at ``final`` whole or not at all, in place of what an earlier run left.

    Raises ``full`` when the disk is.
    """
    try:
        with atomic_folder(final) as staged:
            write(staged)
            shutil.rmtree(final, ignore_errors=True)
    except Exception as error:
        if is_disk_full(error):
            raise full from None
        raise
