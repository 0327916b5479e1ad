"""A file is the old one or the new one; a folder is there or not."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from peft_core import files
from peft_core.errors import Conflict, NoSpace, UnusablePath, is_full
from peft_core.files import private_folder, read_private, write_private
from support.limited_files import files_of_at_most


def test_a_file_on_a_full_disk_stays_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_durable(tmp_path / "x", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_durable(tmp_path / "x", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x", b"old")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_line_that_finds_no_room_is_not_begun_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        files.append_line(descriptor, b"first")
        with files_of_at_most(12), pytest.raises(OSError, match="too large") as full:
            files.append_line(descriptor, b"second, which is too long")
        assert is_full(full.value)
        assert path.read_bytes() == b"first\n"
        files.append_line(descriptor, b"third")
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"first\nthird\n"


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_half_a_line_of_a_killed_process_takes_no_later_line_with_it(tmp_path: Path, flags: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"whole\nha")
    descriptor = os.open(path, flags)
    try:
        files.append_line(descriptor, b"next")
    finally:
        os.close(descriptor)
    assert path.read_bytes() == b"whole\nha\nnext\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_copy_that_finds_no_room_is_not_there_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    path.write_bytes(b"old")
    with files_of_at_most(10), pytest.raises(OSError, match="too large"), files.atomic_file(path) as staged:
        staged.write_bytes(b"new and too long")
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]
    assert path.read_bytes() == b"old"
    with files.atomic_file(path) as staged:
        staged.write_bytes(b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_is_known_whoever_writes(tmp_path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with files_of_at_most(100), pytest.raises(SafetensorError) as full:
        save_file({"a": np.zeros(1000)}, tmp_path / "a.safetensors")
    assert is_full(full.value)
    assert not is_full(SafetensorError("I/O error: Permission denied (os error 13)"))
    assert not is_full(PermissionError(errno.EACCES, "x"))
    with files_of_at_most(100), pytest.raises(NoSpace, match="disk is full"):
        write_private(tmp_path / "b", bytes(200))
    assert UnusablePath(OSError(errno.ENOSPC, "No space left on device"), "x").fix.startswith("Free some space")


def test_discarding_what_is_gone_is_done(tmp_path: Path) -> None:
    (tmp_path / "trash").mkdir()
    assert files.discard_folder(tmp_path / "gone", tmp_path / "trash")
    assert list((tmp_path / "trash").iterdir()) == []


def test_what_the_system_holds_is_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trash").mkdir()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "file").touch()

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(Path, "rename", refuse)
    assert not files.discard_folder(tmp_path / "held", tmp_path / "trash")
    assert (tmp_path / "held" / "file").exists()


def test_a_private_file_is_never_visible_half_written_or_to_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    mask = os.umask(0)
    try:
        write_private(path, b"one")
        write_private(path, b"two")
    finally:
        os.umask(mask)
    assert read_private(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnusablePath, match="folder"):
        write_private(tmp_path / "folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_killed_writers_of_a_file_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".names.json.0123456789abcdef.tmp", tmp_path / ".names.json.fedcba9876543210.tmp"
    others = [tmp_path / ".active.json.0123456789abcdef.tmp", tmp_path / ".names.json.swp", tmp_path / "names.json.tmp"]
    for each in (old, fresh, *others):
        each.touch()
    for each in (old, *others):
        os.utime(each, (1, 1))
    write_private(tmp_path / "names.json", b"{}")
    assert set(tmp_path.iterdir()) == {fresh, *others, tmp_path / "names.json"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_promise_03_a_file_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    write_private(path, b"data")
    path.chmod(mode)
    with pytest.raises(Conflict, match="others may use it"):
        read_private(path)


def test_promise_03_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "real", b"data")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe"):
        with pytest.raises(Conflict, match="cannot be trusted"):
            read_private(tmp_path / name)


def test_promise_03_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = Path("/etc/passwd")
    if os.getuid() == 0:
        path = tmp_path / "file"
        write_private(path, b"data")
        os.chown(path, 65534, 65534)
    with pytest.raises(Conflict, match="it belongs to uid"):
        read_private(path)


def test_a_file_for_others_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "file", b"data", files.SHARED_MODE)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_folder_becomes_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True, mode=0o755)
    assert stat.S_IMODE(private_folder(folder).stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="POSIX owners")
def test_a_folder_of_another_user_is_refused() -> None:
    other = next((p for p in (Path("/var/cache/apt/archives/partial"), Path("/proc/1")) if p.exists()), Path("/"))
    if other.stat().st_uid == os.getuid():
        # Tests that run as root own everything: then a folder given away does.
        import tempfile

        other = Path(tempfile.mkdtemp())
        os.chown(other, 12345, 12345)
    with pytest.raises(Conflict, match="PEFT_DAEMON_HOME"):
        private_folder(other)
