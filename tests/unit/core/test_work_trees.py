"""Work trees of one repository: they have one identity, which no folder can claim by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peft_core.code.work_trees import find_work_tree, main_folder, other_folders, work_tree_list
from support.own_repository import OwnRepository


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    repository = OwnRepository(tmp_path / "shop")
    repository.commit({"app/a.py": "x = 1\n"})
    return repository


def test_a_further_work_tree_stands_for_the_first_and_knows_the_others(own: OwnRepository, tmp_path: Path) -> None:
    for name in ("feature", "fix"):
        own.git("worktree", "add", "--quiet", f"../trees/{name}", "-b", name)
    feature, fix = tmp_path / "trees" / "feature", tmp_path / "trees" / "fix"
    assert main_folder(feature) == main_folder(own.root) == own.root
    assert main_folder(feature / "app" / "new") == own.root / "app" / "new"
    assert [*other_folders(own.root / "app")] == [feature / "app", fix / "app"]
    assert [*other_folders(feature)] == [own.root, fix]
    own.git("worktree", "remove", "--force", str(fix))
    assert [*other_folders(feature)] == [own.root]


def test_without_a_work_tree_of_its_own_the_git_folder_stands_for_the_repository(
    own: OwnRepository, tmp_path: Path
) -> None:
    own.git("clone", "--quiet", "--bare", ".", "../bare.git")
    bare = tmp_path / "bare.git"
    own.git("-C", str(bare), "worktree", "add", "--quiet", str(tmp_path / "one"), "main")
    assert main_folder(tmp_path / "one") == main_folder(bare) == bare
    assert [*other_folders(bare)] == [tmp_path / "one"]


def test_submodules_clones_and_other_folders_stand_for_themselves(own: OwnRepository, tmp_path: Path) -> None:
    own.git("clone", "--quiet", ".", "../clone")
    assert main_folder(tmp_path / "clone") == tmp_path / "clone"
    assert main_folder(tmp_path) == tmp_path and find_work_tree(tmp_path) is None
    outer = OwnRepository(tmp_path / "outer")
    outer.git("submodule", "--quiet", "add", str(own.root), "inner")
    assert main_folder(outer.root / "inner" / "app") == outer.root / "inner" / "app"
    assert [*other_folders(outer.root / "inner")] == []


def test_a_folder_cannot_say_of_itself_that_it_is_of_another_repository(own: OwnRepository, tmp_path: Path) -> None:
    own.git("worktree", "add", "--quiet", "../feature", "-b", "feature")
    listed = own.root / ".git" / "worktrees" / "feature"
    hostile = tmp_path / "hostile"
    (hostile / "fake").mkdir(parents=True)
    (hostile / ".git").write_text(f"gitdir: {listed}\n")
    assert main_folder(hostile) == hostile, "the repository's list names another folder"
    (hostile / "fake" / "commondir").write_text(f"{own.root / '.git'}\n")
    (hostile / "fake" / "gitdir").write_text(f"{hostile / '.git'}\n")
    (hostile / ".git").write_text(f"gitdir: {hostile / 'fake'}\n")
    assert main_folder(hostile) == hostile, "it is not among those that the repository lists"
    assert [*other_folders(own.root)] == [tmp_path / "feature"]


@pytest.mark.parametrize("content", [b"", b"gitdir: ", b"gitdir: \0", b"\xff\xfe", b"gitdir: " + b"a/" * 50_000])
def test_a_pointer_that_points_nowhere_makes_a_folder_stand_for_itself(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".git").write_bytes(content)
    assert main_folder(tmp_path) == tmp_path


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
def test_a_pipe_in_the_place_of_gits_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    assert main_folder(tmp_path) == tmp_path


def test_a_name_that_no_folder_can_have_stands_for_itself() -> None:
    impossible = Path("/p\0q")
    assert find_work_tree(impossible) is None
    assert main_folder(impossible) == impossible
    assert list(other_folders(impossible)) == []
    assert work_tree_list(impossible) == ""
