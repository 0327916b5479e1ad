"""What git knows about earlier commits, on repositories made for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_core.code.history import HeldOutCommits, change_counts, hold_out, texts_at
from support.own_repository import OwnRepository

HOUR = 3_600
START = 1_700_000_000


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    return OwnRepository(tmp_path / "own")


def lines(word: str, count: int) -> str:
    return "".join(f"{word}_{number} = {number}\n" for number in range(count))


def found(own: OwnRepository, *paths: str, wanted: int = 1, share: float = 0.2) -> HeldOutCommits:
    held_out = hold_out(own.root, paths, lines=wanted, share=share)
    assert held_out is not None
    return held_out


def added_lines(own: OwnRepository, held_out: HeldOutCommits, path: str) -> list[str]:
    every = own.git("show", f"{held_out.head}:{path}").split("\n")
    return [every[row] for rows in held_out.added.get(path, ()) for row in rows]


def commit_of(own: OwnRepository, name: str) -> str:
    return own.git("rev-parse", name).strip()


def test_so_many_commits_are_held_out_as_added_the_lines_wanted(own: OwnRepository) -> None:
    own.commit({"a.py": lines("old", 100)})
    for number in range(6):
        own.commit({f"new{number}.py": f"\nfirst_{number} = 1\n\n\nsecond_{number} = 2\n"})
    paths = ["a.py", *(f"new{number}.py" for number in range(6))]
    for wanted, commits in ((1, 1), (2, 1), (3, 2), (7, 4)):
        held_out = found(own, *paths, wanted=wanted)
        assert (held_out.commits, held_out.lines) == (commits, 2 * commits)
        assert held_out.base == commit_of(own, f"HEAD~{commits}")
        assert held_out.head == commit_of(own, "HEAD")
    assert held_out.added == {f"new{number}.py": (range(5),) for number in range(2, 6)}


def test_rows_are_those_of_the_newest_version_whatever_came_between(own: OwnRepository) -> None:
    text = lines("old", 60)
    own.commit({"a.py": text})
    own.commit({"a.py": "first = 1\n" + text})
    own.commit({"a.py": "first = 2\nsecond = 2\n" + text + "last = 3\n"})
    held_out = found(own, "a.py", wanted=3)
    assert held_out.commits == 1
    held_out = found(own, "a.py", wanted=4)
    assert (held_out.commits, held_out.lines) == (2, 3)  # there are no more before the first commit
    assert added_lines(own, held_out, "a.py") == ["first = 2", "second = 2", "last = 3"]


def test_not_more_than_a_share_is_held_out(own: OwnRepository) -> None:
    own.commit({"a.py": lines("a", 70)})
    own.commit({"b.py": lines("b", 15)})
    own.commit({"c.py": lines("c", 10)})
    own.commit({"d.py": lines("d", 5)})
    held_out = found(own, "a.py", "b.py", "c.py", "d.py", wanted=1_000)
    assert (held_out.commits, held_out.lines) == (2, 15)
    assert hold_out(own.root, ["a.py", "b.py", "c.py", "d.py"], lines=1, share=0.04) is None


def test_a_first_commit_cannot_be_held_out(own: OwnRepository) -> None:
    own.write("a.py", lines("a", 9))
    own.git("add", "--all")
    assert hold_out(own.root, ["a.py"], lines=1, share=0.9) is None
    own.commit({})
    assert hold_out(own.root, ["a.py"], lines=1, share=0.9) is None
    own.commit({"notes.txt": "x\n"})
    assert hold_out(own.root, ["a.py"], lines=1, share=0.9) is None


def test_a_shallow_clone_is_held_out_as_far_as_it_goes(own: OwnRepository, tmp_path: Path) -> None:
    own.commit({"a.py": lines("a", 100)})
    for number in range(4):
        own.commit({f"b{number}.py": lines(f"b{number}", 3)})
    paths = ["a.py", *(f"b{number}.py" for number in range(4))]
    for depth in (1, 2):
        own.git("clone", "--quiet", f"--depth={depth}", f"file://{own.root}", str(tmp_path / f"clone{depth}"))
    assert hold_out(tmp_path / "clone1", paths, lines=9, share=0.2) is None
    held_out = hold_out(tmp_path / "clone2", paths, lines=9, share=0.2)
    assert held_out is not None
    assert (held_out.commits, held_out.lines) == (1, 3)


def test_the_lines_of_a_renamed_file_are_not_new(own: OwnRepository) -> None:
    text = lines("old", 50)
    own.commit({"a.py": text, "z.py": lines("z", 20)})
    own.git("mv", "a.py", "b.py")
    own.commit({"b.py": text + "new = 1\n"})
    own.git("mv", "b.py", "c.py")
    own.commit({"c.py": "newest = 2\n" + text + "new = 1\n"})
    held_out = found(own, "c.py", "z.py", wanted=2)
    assert (held_out.commits, held_out.lines) == (2, 2)
    assert held_out.old_paths == {"c.py": "a.py"}
    assert added_lines(own, held_out, "c.py") == ["newest = 2", "new = 1"]


def test_a_merged_branch_is_one_commit(own: OwnRepository) -> None:
    own.commit({"a.py": lines("a", 50)})
    own.git("checkout", "--quiet", "-b", "side")
    own.commit({"b.py": "b = 1\n"})
    own.commit({"b.py": "b = 1\nc = 2\n"})
    own.git("checkout", "--quiet", "main")
    own.commit({"a.py": lines("a", 50) + "d = 3\n"})
    own.git("merge", "--quiet", "--no-ff", "--message=m", "side")
    held_out = found(own, "a.py", "b.py", wanted=1)
    assert (held_out.commits, held_out.lines) == (1, 2)
    assert held_out.base == commit_of(own, "HEAD^1")
    assert found(own, "a.py", "b.py", wanted=3).added == {"a.py": (range(50, 51),), "b.py": (range(2),)}


def test_the_work_tree_and_the_index_do_not_count(own: OwnRepository) -> None:
    own.commit({"a.py": lines("a", 20)})
    own.commit({"a.py": lines("a", 20) + "committed = 1\n"})
    own.write("a.py", "changed = 1\n" * 50)
    own.write("staged.py", "staged = 1\n")
    own.git("add", "staged.py")
    held_out = found(own, "a.py", "staged.py")
    assert added_lines(own, held_out, "a.py") == ["committed = 1"]
    assert list(held_out.added) == ["a.py"]
    assert dict(texts_at(own.root, held_out.base, ["a.py", "staged.py"])) == {"a.py": lines("a", 20).encode()}


def test_changed_white_space_and_line_ends_are_no_new_lines(own: OwnRepository) -> None:
    own.commit({"a.py": lines("a", 20), "dos.py": lines("d", 20)})
    indented = "".join(f"    {line}\n" for line in lines("a", 20).split("\n") if line)
    dos = lines("d", 20).replace("\n", "\r\n")
    own.commit({"a.py": "if True:\n" + indented, "dos.py": dos + "new = 1\r\n"})
    held_out = found(own, "a.py", "dos.py")
    assert held_out.added == {"a.py": (range(1),), "dos.py": (range(20, 21),)}


@pytest.mark.parametrize("name", ["ä ö.py", "tab\there.py", 'quo"te\\.py', "two\nlines.py", "+++ b.py", "a/b c/-x.py"])
def test_names_are_read_whatever_they_are(own: OwnRepository, name: str) -> None:
    own.commit({name: lines("a", 20), "other.py": "x = 1\n"})
    own.commit({name: lines("a", 20) + "new = 1\n", "other.py": "x = 1\n++ b/other = 2\n"})
    held_out = found(own, name, "other.py")
    assert held_out.added == {name: (range(20, 21),), "other.py": (range(1, 2),)}
    assert dict(texts_at(own.root, held_out.base, [name])) == {name: lines("a", 20).encode()}
    assert change_counts(own.root, "HEAD", [name])[name][0] == 2


def test_a_binary_file_has_no_lines_and_is_read_as_it_is(own: OwnRepository) -> None:
    data = b"\0\r\n\xff" * 100
    own.commit({"a.py": lines("a", 20), "b.py": data})
    own.commit({"a.py": lines("a", 20) + "new = 1\n", "b.py": data + b"\0new\n"})
    held_out = found(own, "a.py", "b.py")
    assert list(held_out.added) == ["a.py"]
    assert dict(texts_at(own.root, held_out.base, ["b.py"])) == {"b.py": data}


def test_links_submodules_large_and_missing_files_are_not_read(own: OwnRepository, tmp_path: Path) -> None:
    other = OwnRepository(tmp_path / "other")
    other.commit({"x.py": "x = 1\n"})
    own.commit({"a.py": lines("a", 20), "large.py": "x" * 1_000})
    (own.root / "link.py").symlink_to("a.py")
    own.git("submodule", "--quiet", "add", str(other.root), "sub.py")
    own.commit({"b.py": "", "a.py": lines("a", 20) + "new = 1\n"})
    paths = ["link.py", "sub.py", "sub.py/x.py", "missing.py", "large.py", "b.py", "a.py"]
    read = list(texts_at(own.root, "HEAD", paths, max_bytes=500))
    assert read == [("b.py", b""), ("a.py", (lines("a", 20) + "new = 1\n").encode())]
    assert list(found(own, *paths).added) == ["a.py"]
    assert list(texts_at(own.root, "0" * 40, paths)) == []


def test_only_the_folder_given_is_seen(own: OwnRepository) -> None:
    own.commit({"top.py": lines("a", 20), "app/a.py": lines("a", 20)})
    own.commit({"top.py": lines("a", 20) + "t = 1\n"})
    own.commit({"app/a.py": lines("a", 20) + "new = 1\n"})
    own.commit({"top.py": lines("a", 20) + "t = 2\n"})
    held_out = hold_out(own.root / "app", ["a.py"], lines=1, share=0.2)
    assert held_out is not None
    assert (held_out.added, held_out.commits) == ({"a.py": (range(20, 21),)}, 1)
    assert dict(texts_at(own.root / "app", held_out.base, ["a.py", "top.py"])) == {"a.py": lines("a", 20).encode()}
    assert list(change_counts(own.root / "app", "HEAD", ["a.py", "top.py"])) == ["a.py"]


def test_changes_are_counted_up_to_a_commit(own: OwnRepository) -> None:
    own.commit({"a.py": "1\n", "b.py": "1\n"}, when=START)
    own.commit({"a.py": "2\n"}, when=START + HOUR)
    own.commit({"a.py": "3\n", "c.py": "1\n"}, when=START + 2 * HOUR)
    paths = ["a.py", "b.py", "c.py"]
    assert change_counts(own.root, "HEAD~1", paths) == {"a.py": (2, START + HOUR), "b.py": (1, START)}
    assert change_counts(own.root, "HEAD", paths)["a.py"] == (3, START + 2 * HOUR)
    assert change_counts(own.root, "HEAD", paths, max_seconds=0.0) in ({}, change_counts(own.root, "HEAD", paths))


def test_no_program_of_the_configuration_is_started_and_no_setting_changes_the_result(own: OwnRepository) -> None:
    mark = own.root / "started"
    program = f"touch '{mark}'; cat"
    own.commit({"a.py": lines("a", 20), ".gitattributes": "*.py diff=mine filter=mine\n"})
    own.commit({"a.py": "new = 1\n" + lines("a", 20)})
    for key, value in (
        ("diff.mine.textconv", program),
        ("diff.mine.command", program),
        ("diff.external", program),
        ("core.pager", program),
        ("core.fsmonitor", program),
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("diff.interHunkContext", "50"),
        ("diff.renames", "false"),
        ("color.ui", "always"),
        ("log.showSignature", "true"),
        ("log.follow", "true"),
    ):
        own.git("config", key, value)
    assert found(own, "a.py").added == {"a.py": (range(1),)}
    assert len(list(texts_at(own.root, "HEAD", ["a.py"]))) == 1
    assert change_counts(own.root, "HEAD", ["a.py"])["a.py"][0] == 2
    assert not mark.exists()


def test_a_partial_clone_is_not_completed_from_the_network(own: OwnRepository, tmp_path: Path) -> None:
    own.git("config", "uploadpack.allowFilter", "true")
    own.commit({"a.py": lines("a", 20)})
    own.commit({"a.py": lines("a", 20) + "new = 1\n"})
    clone = tmp_path / "clone"
    own.git("clone", "--quiet", "--bare", "--filter=blob:none", f"file://{own.root}", str(clone))
    assert hold_out(clone, ["a.py"], lines=1, share=0.2) is None
    assert list(texts_at(clone, "HEAD", ["a.py"])) == []
