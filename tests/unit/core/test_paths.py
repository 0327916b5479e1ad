"""Folders: moved by one variable, private to the user, never somebody else's."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from peft_core.errors import Conflict
from peft_core.paths import Paths, private_folder


def test_one_variable_moves_everything(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    folders = [paths.config_file, paths.data, paths.cache, paths.state, paths.runtime, paths.models, paths.adapters]
    assert all(tmp_path in folder.parents for folder in folders)


def test_without_a_session_the_runtime_folder_is_not_a_guessable_one() -> None:
    paths = Paths.from_environment({})
    assert paths.runtime.parent == paths.state


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sessions of Linux")
def test_the_sessions_own_folder_is_the_runtime_folder_and_no_other_without_a_word(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    own, shared, link = tmp_path / "own", tmp_path / "shared", tmp_path / "link"
    own.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o755)
    link.symlink_to(own)
    assert Paths.from_environment({"XDG_RUNTIME_DIR": str(own)}).runtime == own / "peft-daemon"
    for other in (shared, link, tmp_path / "gone", Path("relative")):
        paths = Paths.from_environment({"XDG_RUNTIME_DIR": str(other)})
        assert paths.runtime == paths.state / "run"
    assert not recwarn.list


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
