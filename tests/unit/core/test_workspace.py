"""Which files of a folder that somebody works in are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.code.files import SkipReason, list_workspace
from peft_core.errors import InvalidInput
from support.own_repository import OwnRepository


def paths(root: Path) -> list[str]:
    return [each.path for each in list_workspace(root.resolve()).files]


def test_new_files_count_and_ignored_ones_do_not(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "own")
    own.commit({".gitignore": "build/\nforced.py\n", "a.py": "x = 1\n", "forced.py": "x = 1\n"})
    own.write("new.py", "x = 1\n")
    own.write("build/made.py", "x = 1\n")
    own.write("node_modules/x.js", "x = 1\n")
    own.write("README.md", "x\n")
    assert paths(own.root) == ["a.py", "new.py"]


def test_files_that_hold_secrets_do_not_count_and_are_counted_as_what_they_are(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "own")
    own.commit({"a.py": "x = 1\n", "secrets.py": "KEY = 1\n", "credentials.py": "class Credentials: ...\n"})
    own.write(".env", "KEY=1\n")
    assert paths(own.root) == ["a.py", "credentials.py"]
    assert list_workspace(own.root.resolve()).skipped[SkipReason.PRIVATE.value] == 1


def test_a_folder_in_a_work_tree_has_paths_of_its_own_and_the_rules_above_it(tmp_path: Path) -> None:
    own = OwnRepository(tmp_path / "own")
    own.commit({".gitignore": "*_gen.py\n", "sub/a.py": "x = 1\n", "other.py": "x = 1\n"})
    own.write("sub/b_gen.py", "x = 1\n")
    assert paths(own.root / "sub") == ["a.py"]


def test_outside_git_hidden_folders_are_left_out_and_links_are_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "plain", tmp_path / "elsewhere"
    for file in (root / "a.py", root / ".cache" / "b.py", elsewhere / "secret.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    (root / "link").symlink_to(elsewhere)
    assert paths(root) == ["a.py"]


def test_a_work_tree_that_git_refuses_is_not_read_without_its_rules(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(InvalidInput):
        list_workspace(tmp_path.resolve())
