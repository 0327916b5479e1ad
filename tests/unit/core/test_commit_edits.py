"""Moments within the changes of a history, from real commits of a repository made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from peft_core.code.commit_edits import changed_words, edit_commits, edit_steps, follows, line_after
from peft_core.code.edits import LineChange

BEFORE = """\
def area(width, height):
    return width * height


def print_area(width, height):
    print(area(width, height))


def unrelated():
    return 1
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        subprocess.run(
            ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments),
            check=True,
            capture_output=True,
        )

    def commit(text: str) -> None:
        (tmp_path / "shapes.py").write_text(text)
        git("add", "-A")
        git("commit", "-m", "a change")

    git("init", "-q")
    commit(BEFORE)
    commit(BEFORE.replace("(width, height)", "(width, height, unit)").replace("return 1", "return 2"))
    commit(BEFORE.replace("(width, height)", "(width, height, unit)").replace("return 1", "return  2"))
    return tmp_path


def test_a_moment_has_the_changes_so_far_and_the_next_that_follows(repository: Path) -> None:
    (commit,) = edit_commits(repository)
    found = [each for file in commit.files for each in edit_steps(file, commit.at) if follows(each)]
    assert [(line_after(each), each.following and each.following.new) for each in found] == [
        (0, ("def print_area(width, height, unit):", "    print(area(width, height, unit))")),
    ]
    moment = found[0]
    assert [each.change.new for each in moment.history] == [("def area(width, height, unit):",)]
    assert moment.lines[line_after(moment)] == "def area(width, height, unit):"
    assert moment.following is not None
    after = moment.following.apply(moment.lines)
    assert "\n".join(after) + "\n" == BEFORE.replace("(width, height)", "(width, height, unit)")


def test_white_space_is_no_change_and_the_first_commit_is_none(repository: Path) -> None:
    assert [len(each.files) for each in edit_commits(repository)] == [1]


def test_words_that_only_move_are_not_changed() -> None:
    assert changed_words(LineChange(0, ("call(first, second)",), ("call(second, first)",))) == frozenset()
    assert changed_words(LineChange(0, ("first = second",), ("first = third(first)",))) == {"first", "second", "third"}


def test_the_last_step_of_a_file_has_all_changes_made_and_none_that_follows(repository: Path) -> None:
    (commit,) = edit_commits(repository)
    (file,) = commit.files
    steps = list(edit_steps(file, commit.at))
    assert steps[0].lines == file.before
    assert not steps[0].history
    assert [each.following is None for each in steps] == [False, False, False, True]
    assert steps[-1].lines == file.after
    assert [follows(each) for each in steps] == [False, True, False, False]
