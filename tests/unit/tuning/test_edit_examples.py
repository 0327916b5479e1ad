"""Examples of next edits: windows of real commits with what follows, and with nothing to change; the newest judge."""

from __future__ import annotations

import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.commit_edits import ChangedFile, EditCommit
from peft_core.code.edits import Lines
from peft_core.errors import InvalidInput
from peft_daemon.next_edit.places import places
from peft_tuning.data.edits.history import edits_data_set
from peft_tuning.data.edits.windows import MAX_ANSWERS, UNRELATED_LINES, WindowKind, commit_windows
from peft_tuning.data.examples import DataSet, EditExample, Example, question
from support.edited_repository import edited_repository

COMMITS = 24
WORDS = st.sampled_from(["width", "height", "return", "area(width)", "lengthy", "x = area(height, width)", "", "    y"])
TEXTS = st.lists(WORDS, min_size=1, max_size=14).map(tuple)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ("git", "-C", str(folder), *identity, *arguments), check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited_repository(tmp_path_factory.mktemp("sources") / "shop", COMMITS)


@pytest.fixture(scope="module")
def data(repository: Path) -> DataSet:
    return made_of(repository)


def made_of(*roots: Path, most: int = 500, ignored: tuple[str, ...] = ()) -> DataSet:
    return edits_data_set([(root, "") for root in roots], name="shop", seed=1, max_examples=most, ignored=ignored)


def edits(examples: tuple[Example, ...]) -> list[EditExample]:
    return [each for each in examples if isinstance(each, EditExample)]


def kind(example: EditExample) -> WindowKind:
    return WindowKind(example.id.rpartition(":")[2])


def squeezed(lines: Lines) -> str:
    return "".join("".join(lines).split())


def commits_of(examples: tuple[Example, ...]) -> list[str]:
    return [each.id.partition("@")[2].partition(":")[0] for each in examples]


def test_what_judges_is_newer_than_what_chooses_and_that_newer_than_what_is_learned(
    repository: Path, data: DataSet
) -> None:
    ages = {commit[:12]: age for age, commit in enumerate(git(repository, "rev-list", "HEAD").split())}
    parts = [[ages[commit] for commit in commits_of(part)] for part in (data.test, data.validation, data.train)]
    assert all(parts)
    assert all(max(newer) < min(older) for newer, older in pairwise(parts))
    asked = [{question(each) for each in part} for part in (data.test, data.validation, data.train)]
    assert all(one.isdisjoint(other) for one, other in pairwise(asked))
    assert not asked[0] & asked[2]


def test_about_a_third_has_nothing_to_change_for_each_reason(data: DataSet) -> None:
    found = edits((*data.train, *data.validation, *data.test))
    kinds = Counter(map(kind, found))
    assert set(kinds) == set(WindowKind)
    assert 0.2 < 1 - kinds[WindowKind.ANSWER] / len(found) < 0.45
    assert all(each.is_silent == (kind(each) is not WindowKind.ANSWER) for each in found)
    assert max(Counter(commits_of(tuple(e for e in found if not e.is_silent))).values()) <= MAX_ANSWERS


def test_an_answer_is_what_the_commit_went_on_with_in_a_window_near_one_that_is_looked_at(
    repository: Path, data: DataSet
) -> None:
    shifts = set()
    for each in edits(data.train):
        if each.is_silent:
            continue
        looked_at = places(each.moment)
        nearest = min(looked_at, key=lambda place: abs(place.start - each.place.start))
        shifts.add(each.place.start - nearest.start)
        assert each.place.end - each.place.start == nearest.end - nearest.start
        lines = (*each.moment.lines[: each.place.start], *each.answer, *each.moment.lines[each.place.end :])
        after = git(repository, "show", f"{each.id.partition('@')[2].partition(':')[0]}:{each.moment.path}")
        assert set(lines) <= {*after.split("\n"), *each.moment.lines}, "the commit's own lines"
    assert len(shifts) > 2, "the change is not always at the same line of its window"


def test_an_unrelated_place_is_far_from_all_changes(data: DataSet) -> None:
    found = [each for each in edits(data.train) if kind(each) is WindowKind.UNRELATED]
    assert found
    for each in found:
        assert each.place.start <= each.moment.line < each.place.end
        for known in each.moment.edits:
            assert not (
                known.change.start < each.place.end + UNRELATED_LINES
                and each.place.start - UNRELATED_LINES < known.change.new_end
            )


def test_the_same_commits_give_the_same_data(repository: Path, data: DataSet) -> None:
    assert made_of(repository).digest == data.digest


def test_no_more_is_learned_than_was_asked_for(repository: Path) -> None:
    assert len(made_of(repository, most=20).train) == 20
    few = edits_data_set([(repository, "")], name="shop", seed=1, max_examples=3, held_out=2)
    assert len(few.train) == 3, "a little asked for is no little history"


def test_a_secret_an_ignored_file_and_a_generated_one_teach_nothing(tmp_path: Path) -> None:
    repository = edited_repository(tmp_path / "shop", COMMITS)
    assert all(each.moment.path == "shapes.py" for each in edits(made_of(repository, ignored=("lib/",)).train))
    (repository / ".gitattributes").write_text("lib/* linguist-generated\n")
    assert all(each.moment.path == "shapes.py" for each in edits(made_of(repository).train))
    (repository / ".peft-daemon.toml").write_text('[tune]\nignore = ["shapes.py"]\n')
    with pytest.raises(InvalidInput, match="0 examples are in its commits"):
        made_of(repository)


def test_an_example_that_shows_a_secret_is_left_out(tmp_path: Path) -> None:
    repository = edited_repository(tmp_path / "shop", COMMITS)
    key = 'API_KEY = "AKIA' + 'Z7Q2M4N8P3R5T6WX"'
    for name in ("shapes.py", "lib/figures.py"):
        text = (repository / name).read_text()
        (repository / name).write_text(key + "\n" + text.replace("width, height", "width, height, depth"))
    git(repository, "commit", "-q", "-a", "-m", "a key")
    head = git(repository, "rev-parse", "HEAD")[:12]
    made = made_of(repository)
    assert head not in commits_of((*made.train, *made.validation, *made.test))
    assert made.dropped["example: shows a secret"]


def test_several_histories_share_the_room(repository: Path, tmp_path: Path) -> None:
    other = edited_repository(tmp_path / "store", COMMITS)
    made = made_of(repository, other, most=60)
    names = Counter(each.id.partition("@")[0] for each in made.test)
    assert set(names) == {"shop", "store"}
    assert "shop at" in made.provenance and "store at" in made.provenance


def test_too_little_history_is_refused_with_the_way_out(repository: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInput, match="not in a git work tree"):
        made_of(empty)
    git(empty, "init", "-q")
    with pytest.raises(InvalidInput, match="nothing is committed there") as none:
        made_of(empty)
    assert "leave out `--edits`" in none.value.fix
    with pytest.raises(InvalidInput, match=r"\d+ examples are in its commits, 40 are needed"):
        made_of(edited_repository(tmp_path / "short", 2))
    git(tmp_path, "clone", "-q", "--depth", "3", repository.as_uri(), "shallow")
    with pytest.raises(InvalidInput, match="the clone is shallow") as shallow:
        made_of(tmp_path / "shallow")
    assert "fetch --unshallow" in shallow.value.fix


@given(TEXTS, TEXTS, st.integers(0, 2**32))
def test_every_window_is_of_its_document_and_only_answers_change_it(before: Lines, after: Lines, seed: int) -> None:
    file = ChangedFile("a.py", "python", before, after)
    commit = EditCommit("1" * 40, 1, (file,))
    made = commit_windows("x", commit, commit.files, Random(seed))
    for each in made.examples:
        assert 0 <= each.place.start < each.place.end <= len(each.moment.lines)
        assert each.is_silent == (kind(each) is not WindowKind.ANSWER)
        # Changes of white space alone are not in the history, so they stay.
        assert squeezed(each.moment.before) == squeezed(before), "the history undoes to the document before the commit"
