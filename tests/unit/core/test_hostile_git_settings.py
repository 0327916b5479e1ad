"""What `.git/config` of a folder that came from somebody else claims, and what is made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.code import git
from peft_core.code.files import list_workspace
from peft_core.errors import InvalidInput
from peft_daemon.learning.repository import find_tree
from support.own_repository import OwnRepository

CODE = "def f(x):\n    return x\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder with work of their own, in which the repository of somebody else was unpacked."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    (home / "work" / "private.py").write_text(CODE)
    return home


@pytest.mark.parametrize("also_a_repository", [False, True])
def test_another_folder_that_is_claimed_as_the_work_tree_is_not_learned(home: Path, also_a_repository: bool) -> None:
    if also_a_repository:
        OwnRepository(home).commit({"mine.py": CODE})
    unpacked = OwnRepository(home / "unpacked")
    unpacked.commit({"a.py": CODE})
    unpacked.git("config", "core.worktree", str(home))
    assert find_tree(str(unpacked.root)) is None
    with pytest.raises(InvalidInput, match="another folder"):
        git.top_level(unpacked.root)
    assert [each.path for each in list_workspace(unpacked.root.resolve()).files] in ([], ["a.py"])


def test_further_work_trees_and_submodules_are_where_they_are(tmp_path: Path) -> None:
    own, part = OwnRepository(tmp_path / "own"), OwnRepository(tmp_path / "part")
    part.commit({"b.py": CODE})
    own.commit({"sub/a.py": CODE})
    own.git("worktree", "add", "-q", str(tmp_path / "further"))
    own.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part.root), "module")
    assert git.top_level(tmp_path / "further" / "sub") == (tmp_path / "further").resolve()
    assert git.top_level(own.root / "module") == (own.root / "module").resolve()
    assert git.top_level(own.root / "sub") == own.root.resolve()


@pytest.mark.parametrize("included", ["pipe", "/dev/zero", "itself"])
def test_settings_that_never_end_are_given_up(home: Path, included: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = OwnRepository(home / "unpacked")
    unpacked.commit({"a.py": CODE})
    os.mkfifo(unpacked.root / ".git" / "pipe")
    path = {"itself": str(unpacked.root / ".git" / "config"), "pipe": "pipe"}.get(included, included)
    unpacked.git("config", "include.path", path)
    monkeypatch.setattr(git, "MAX_ANSWER_S", 2.0)
    with pytest.raises(InvalidInput):
        list_workspace(unpacked.root.resolve())
    assert find_tree(str(unpacked.root)) is None
