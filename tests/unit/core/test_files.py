"""A file is the old one or the new one; a folder is there or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core import files


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(tmp_path / "x", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "x", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x", b"old")]


def test_discarding_what_is_gone_is_done(tmp_path: Path) -> None:
    (tmp_path / "trash").mkdir()
    assert files.discard(tmp_path / "gone", tmp_path / "trash")
    assert list((tmp_path / "trash").iterdir()) == []


def test_what_the_system_holds_is_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trash").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "file").touch()

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(Path, "rename", refuse)
    assert not files.discard(tmp_path / "held", tmp_path / "trash")
    assert (tmp_path / "held" / "file").exists()
