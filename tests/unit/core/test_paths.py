"""Folders: moved by one variable, private to the user, never somebody else's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from peft_core import paths as paths_module
from peft_core.paths import Paths


def test_one_variable_moves_everything(tmp_path: Path) -> None:
    paths = Paths.from_environment({"PEFT_DAEMON_HOME": str(tmp_path)})
    folders = [paths.config_file, paths.data, paths.cache, paths.state, paths.runtime, paths.models, paths.adapters]
    assert all(tmp_path in folder.parents for folder in folders)


@pytest.fixture(autouse=True)
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all sessions, without one of this user."""
    monkeypatch.setattr(paths_module, "SESSIONS", tmp_path / "sessions")
    return tmp_path / "sessions"


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sessions of Linux")
def test_a_shell_that_does_not_know_its_session_finds_the_daemon_of_the_desktop(sessions: Path) -> None:
    own = sessions / str(os.getuid())
    own.mkdir(parents=True, mode=0o700)
    desktop = Paths.from_environment({"XDG_RUNTIME_DIR": str(own)})
    assert Paths.from_environment({}) == desktop
    assert Paths.from_environment({"XDG_RUNTIME_DIR": "/run/user/of-somebody-else"}) == desktop
    own.chmod(0o755)
    assert Paths.from_environment({}).runtime.parent == desktop.state
