"""A checkpoint is complete or absent, and a failed one takes nothing with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peft_core.errors import InvalidInput, NoSpace
from peft_tuning import checkpoints
from peft_tuning.checkpoints import (
    OPTIMIZER,
    SCHEDULER,
    WEIGHTS,
    CheckpointStore,
    TrainingState,
    restore,
    trained_weights,
)
from support.limited_files import files_of_at_most

pytestmark = pytest.mark.torch


def weights(value: float) -> dict[str, Tensor]:
    return {"a": torch.full((3, 2), value), "b": torch.full((4,), -value)}


def save(store: CheckpointStore, step: int, best_step: int | None = None) -> Path:
    return store.save(
        TrainingState(step=step, best_step=best_step),
        weights=weights(step),
        optimizer={"state": {0: {"step": step, "sum": torch.ones(2) * step}}},
        scheduler={"last_epoch": step},
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_what_is_saved_is_what_is_read(store: CheckpointStore) -> None:
    assert store.latest() is None
    save(store, 7)
    found = store.latest()
    assert found is not None
    assert found.step == 7
    assert torch.equal(found.weights()["a"], weights(7)["a"])
    assert found.load(OPTIMIZER)["state"][0]["step"] == 7
    assert found.state() == TrainingState(step=7)


def test_the_state_that_an_earlier_version_wrote_is_read(store: CheckpointStore) -> None:
    folder = save(store, 2, best_step=None)
    # As transformers' Trainer wrote it, shortened; the checksums of the folder are not looked at here.
    (folder / "trainer_state.json").write_text(
        """{"best_global_step": 2, "best_metric": 4.5, "epoch": 1.0, "global_step": 2, "is_world_process_zero": true,
        "log_history": [{"epoch": 0.5, "grad_norm": 1.2, "learning_rate": 0.01, "loss": 5.5, "step": 1},
        {"epoch": 1.0, "grad_norm": 1.1, "learning_rate": 0.005, "loss": 5.0, "step": 2},
        {"epoch": 1.0, "eval_loss": 4.5, "step": 2}], "total_flos": 0, "trial_name": null}"""
    )
    state = checkpoints.Checkpoint(folder, checkpoints.CheckpointSummary(step=2, best_step=2, sha256={})).state()
    assert (state.step, state.best_step, state.best_loss) == (2, 2, 4.5)
    assert state.losses == [(1, 5.5), (2, 5.0)]
    assert state.evaluations == [(2, 4.5)]


def test_patience_is_exhausted_after_so_many_worse_evaluations() -> None:
    state = TrainingState()
    for loss in (2.0, 1.0, 1.0, 1.5):
        state.add_step(loss, 0.1, 1.0, 0.0)
        state.add_evaluation(loss)
    assert (state.best_step, state.best_loss) == (2, 1.0)
    assert (state.is_exhausted(2), state.is_exhausted(3), state.is_exhausted(None)) == (True, False, False)


def test_the_two_newest_stay_and_the_best_ones_they_name(store: CheckpointStore) -> None:
    for step, best in ((3, 3), (6, 3), (9, 3), (12, 12)):
        if best == step:
            store.save_best(step, weights(step))
        save(store, step, best)
    names = sorted(path.name for path in store.root.iterdir())
    assert names == ["best-0000003", "best-0000012", "step-0000009", "step-0000012"]
    save(store, 15, 12)
    assert not (store.root / "best-0000003").exists()
    assert torch.equal(store.best(12)["b"], weights(12)["b"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, SCHEDULER, "trainer_state.json", "checkpoint.json"])
def test_a_full_disk_leaves_the_previous_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    size = (save(store, 3) / name).stat().st_size
    monkeypatch.setattr(Path, "write_bytes", limited(Path.write_bytes, name, size))
    monkeypatch.setattr(checkpoints, "save_file", limited(checkpoints.save_file, name, size))
    with pytest.raises(NoSpace, match="previous checkpoint is complete"):
        save(store, 6)
    monkeypatch.undo()
    found = store.latest()
    assert found is not None
    assert found.step == 3
    assert [path.name for path in store.root.iterdir()] == ["step-0000003"]


def limited(write: Callable[..., Any], name: str, size: int) -> Callable[..., Any]:
    """The real write, but the file of this name finds no room for its last byte."""

    def called(*args: Any) -> Any:
        path = next(each for each in args if isinstance(each, Path))
        with files_of_at_most(size - 1) if path.name == name else nullcontext():
            return write(*args)

    return called


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE = (cut, flip_a_bit, empty, Path.unlink)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, SCHEDULER, "trainer_state.json", "checkpoint.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    store: CheckpointStore, name: str, damage: Callable[[Path], None]
) -> None:
    save(store, 3)
    damage(save(store, 6) / name)
    found = store.latest()
    assert found is not None
    assert found.step == 3


def test_a_checkpoint_without_its_best_weights_is_passed_over(store: CheckpointStore) -> None:
    save(store, 3)
    save(store, 6, best_step=5)
    found = store.latest()
    assert found is not None
    assert found.step == 3


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(
    store: CheckpointStore, damage: Callable[[Path], None]
) -> None:
    for step in (3, 6):
        store.save_best(step, weights(step))
        save(store, step, best_step=step)
    damage(store.root / "best-0000006" / WEIGHTS)
    found = store.latest()
    assert found is not None
    assert (found.step, found.summary.best_step) == (3, 3)


def test_what_is_saved_after_damaged_checkpoints_stays_although_they_are_newer(store: CheckpointStore) -> None:
    for step in (6, 9):
        cut(save(store, step) / WEIGHTS)
    assert store.latest() is None
    for step in (2, 3, 4):
        save(store, step)
        found = store.latest()
        assert found is not None
        assert found.step == step
    assert sorted(path.name for path in store.root.iterdir()) == ["step-0000003", "step-0000004"]


def test_an_optimizer_file_cannot_run_code(store: CheckpointStore) -> None:
    folder = save(store, 3)
    torch.save({"state": Path("/")}, folder / OPTIMIZER)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoints.Checkpoint(folder, checkpoints.CheckpointSummary(step=3, best_step=None, sha256={})).load(OPTIMIZER)


def test_weights_of_another_run_are_refused() -> None:
    model = torch.nn.Linear(2, 3)
    kept = {name: each.clone() for name, each in trained_weights(model).items()}
    restore(model, {name: each + 1 for name, each in kept.items()})
    assert torch.equal(model.weight, kept["weight"] + 1)
    for wrong in ({"weight": kept["weight"]}, {**kept, "bias": torch.zeros(4)}):
        with pytest.raises(InvalidInput, match="other weights"):
            restore(model, wrong)
