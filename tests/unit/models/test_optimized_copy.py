"""A kept copy is handed out only while it is what was recorded, of the original that is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.errors import Conflict
from peft_core.files import file_sha256
from peft_core.settings import Settings
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.optimized import (
    OPTIMIZED_RECORD_FILE,
    CopyFigures,
    ModelFile,
    OptimizedRecord,
    publish_optimized,
    read_optimized,
    remove_optimized,
)
from peft_daemon.models.store import ModelStore

AUTO = Settings()
FIGURES = CopyFigures(
    reading=1.5, writing=1.25, loss=0.01, loss_bound=0.02, places=9, lines=8, right=3, right_original=4, same=7
)


@pytest.fixture
def installed(store: ModelStore, entry: ModelEntry, payload_file: Path) -> ModelStore:
    store.pull(entry, local=payload_file)
    return store


def _keep(store: ModelStore, entry: ModelEntry, recipe: str = "faster") -> OptimizedRecord:
    made = store.staging(entry) / "made"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(recipe.encode() * 100)
    folder = store.path(entry).parent
    return publish_optimized(
        folder,
        ModelFile(made, file_sha256(made), recipe),
        name="tiny",
        source_sha256=entry.sha256,
        adapter="",
        figures=FIGURES,
        versions={"gguf": "0"},
        processor="one",
    )


def test_without_a_copy_the_original_serves(installed: ModelStore, entry: ModelEntry) -> None:
    assert installed.file_to_serve(entry, AUTO) == ModelFile(installed.path(entry), entry.sha256)


def test_a_kept_copy_serves_under_its_own_hash(installed: ModelStore, entry: ModelEntry) -> None:
    record = _keep(installed, entry)
    served = installed.file_to_serve(entry, AUTO)
    assert served.path.read_bytes() == b"faster" * 100
    assert (served.sha256, served.recipe) == (file_sha256(served.path), "faster")
    assert read_optimized(served.path.parent, entry.sha256) == record
    assert installed.path(entry).name == "tiny.gguf"


@pytest.mark.parametrize("settings", [Settings(model_file="original"), Settings(engine="torch")])
def test_who_wants_the_original_gets_it(installed: ModelStore, entry: ModelEntry, settings: Settings) -> None:
    _keep(installed, entry)
    assert installed.file_to_serve(entry, settings).path == installed.path(entry)


def test_a_copy_that_changed_or_is_half_gone_does_not_serve(installed: ModelStore, entry: ModelEntry) -> None:
    copy = installed.path(entry).parent / _keep(installed, entry).file
    os.utime(copy, ns=(1, 1))
    assert installed.file_to_serve(entry, AUTO).path == installed.path(entry)
    copy.unlink()
    assert installed.file_to_serve(entry, AUTO).path == installed.path(entry)


def test_a_copy_of_another_original_does_not_serve(installed: ModelStore, entry: ModelEntry) -> None:
    folder = installed.path(entry).parent
    _keep(installed, entry)
    assert read_optimized(folder, "0" * 64) is None


def test_a_damaged_record_is_no_copy(installed: ModelStore, entry: ModelEntry) -> None:
    _keep(installed, entry)
    (installed.path(entry).parent / OPTIMIZED_RECORD_FILE).write_text("{")
    assert installed.file_to_serve(entry, AUTO).recipe == ""


def test_keeping_another_deletes_the_one_before(installed: ModelStore, entry: ModelEntry) -> None:
    _keep(installed, entry, "first")
    _keep(installed, entry, "second")
    folder = installed.path(entry).parent
    assert [file.name for file in folder.glob("*.optimized.gguf")] == ["tiny-second.optimized.gguf"]
    assert installed.file_to_serve(entry, AUTO).recipe == "second"


def test_removing_gives_the_original_back(installed: ModelStore, entry: ModelEntry) -> None:
    _keep(installed, entry)
    before = {"tiny.gguf", "verified.json"}
    folder = installed.path(entry).parent
    assert remove_optimized(folder) == 600
    assert {file.name for file in folder.iterdir()} == before
    assert remove_optimized(folder) == 0


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path: Path, entry: ModelEntry) -> None:
    store = ModelStore(tmp_path / "models", offline=True, free_bytes=lambda folder: 10)
    with pytest.raises(Conflict, match="not enough room"):
        store.require_room(entry, 11)
    store.require_room(entry, 10)
