"""Which files of a repository are learned from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from peft_core.code import git
from peft_core.code.files import SkipReason, SourceFile, read_source
from peft_core.code.patterns import FilePatterns
from peft_core.errors import InvalidInput
from peft_tuning.data.repository.files import repository_files, source_files
from support.own_repository import OwnRepository

CODE = "x = 1\n"


@pytest.fixture
def own(tmp_path: Path) -> OwnRepository:
    return OwnRepository(tmp_path / "own")


def paths(root: Path) -> list[str]:
    return [each.path for each in repository_files(root).files]


def source(file: Path, root: Path | None = None) -> SourceFile:
    return SourceFile(file.name, file, (root or file.parent).resolve(), "python")


def test_only_tracked_files_count(own: OwnRepository) -> None:
    own.commit({"a.py": CODE, "b/c.go": "package c\n"})
    own.write("private.py", CODE)
    assert paths(own.root) == ["a.py", "b/c.go"]


def test_a_tracked_file_that_gitignore_names_is_left_out(own: OwnRepository) -> None:
    own.commit({".gitignore": "*.gen.py\nsecret/\n", "a.py": CODE, "b.gen.py": CODE, "secret/c.py": CODE})
    listing = repository_files(own.root)
    assert [each.path for each in listing.files] == ["a.py"]
    assert listing.skipped[SkipReason.IGNORED.value] == 2


def test_the_project_file_leaves_out_more_and_can_take_back(own: OwnRepository) -> None:
    own.commit({
        ".peft-daemon.toml": 'max_tokens_fill = 50\n[tune]\nignore = ["legacy/", "*_old.py", "!keep_old.py"]\n',
        "a.py": CODE,
        "legacy/b.py": CODE,
        "sub/c_old.py": CODE,
        "keep_old.py": CODE,
    })  # fmt: skip
    assert paths(own.root) == ["a.py", "keep_old.py"]


def test_the_rules_of_the_project_file_above_a_folder_apply_to_paths_below_that_file(own: OwnRepository) -> None:
    own.commit({".peft-daemon.toml": '[tune]\nignore = ["/app/old/"]\n', "app/old/a.py": CODE, "app/b.py": CODE})
    assert paths(own.root / "app") == ["b.py"]


@pytest.mark.parametrize("table", ['tune = "x"', "[tune]\nignore = 3", "[tune]\nignore = [1]", "[tune"])
def test_a_wrong_project_file_is_named(own: OwnRepository, table: str) -> None:
    own.commit({"a.py": CODE, ".peft-daemon.toml": table})
    with pytest.raises(InvalidInput, match=r"peft-daemon\.toml"):
        repository_files(own.root)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("vendor/a.py", SkipReason.VENDORED),
        ("web/node_modules/a/index.js", SkipReason.VENDORED),
        ("lib/site-packages/a.py", SkipReason.VENDORED),
        ("api_pb2.py", SkipReason.GENERATED),
        ("web/app.min.js", SkipReason.GENERATED),
        ("pkg/_version.py", SkipReason.GENERATED),
        ("notes.md", SkipReason.LANGUAGE),
        ("data.json", SkipReason.LANGUAGE),
        ("new\nline.py", SkipReason.NAME),
    ],
)
def test_a_file_left_out_by_its_name_is_counted(own: OwnRepository, path: str, reason: SkipReason) -> None:
    own.commit({"a.py": CODE, path: CODE})
    listing = repository_files(own.root)
    assert [each.path for each in listing.files] == ["a.py"]
    assert listing.skipped == {reason.value: 1}


def test_attributes_for_github_count_here_too(own: OwnRepository) -> None:
    rules = "schema.py linguist-generated\nother.py linguist-vendored=true\nkept.py -linguist-generated\n"
    own.commit({".gitattributes": rules, "schema.py": CODE, "other.py": CODE, "kept.py": CODE})
    assert paths(own.root) == ["kept.py"]


@pytest.mark.parametrize("name", ["with space.py", "größe.py", "日本.py", "a'b\"c.py", "-dash.py"])
def test_names_need_not_be_plain(own: OwnRepository, name: str) -> None:
    own.commit({name: CODE})
    (found,) = repository_files(own.root).files
    assert (found.path, read_source(found)) == (name, CODE)


def test_links_and_submodules_are_left_out(own: OwnRepository, tmp_path: Path) -> None:
    other = OwnRepository(tmp_path / "other")
    other.commit({"z.py": CODE})
    (own.root / "link.py").symlink_to(other.root / "z.py")
    own.commit({"a.py": CODE})
    own.git("submodule", "--quiet", "add", str(other.root), "sub.py")
    listing = repository_files(own.root)
    assert [each.path for each in listing.files] == ["a.py"]
    assert listing.skipped[SkipReason.SUBMODULE.value] == listing.skipped[SkipReason.LINK.value] == 1


def test_a_folder_that_became_a_link_out_of_the_repository_is_not_followed(own: OwnRepository, tmp_path: Path) -> None:
    own.commit({"pkg/a.py": CODE})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.py").write_text("private = 1\n")
    (own.root / "pkg/a.py").unlink()
    (own.root / "pkg").rmdir()
    (own.root / "pkg").symlink_to(tmp_path / "outside")
    (found,) = repository_files(own.root).files
    assert read_source(found) is SkipReason.OUTSIDE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x = '\0'\n", SkipReason.BINARY),
        (b"# caf\xe9\n", SkipReason.ENCODING),
        (b"x = 1\n" * 100_000, SkipReason.TOO_LARGE),
        (b"x = '" + b"a" * 3_000 + b"'\n", SkipReason.MINIFIED),
        (b" \n\t\n", SkipReason.EMPTY),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", SkipReason.LFS_POINTER),
        (b"a = 1\n<<" + b"<<<<< HEAD\nb = 1\n=======\nb = 2\n>>>>>>> other\n", SkipReason.CONFLICT),
        (b"# Code " + b"generated by protoc. DO NOT EDIT.\nx = 1\n", SkipReason.GENERATED),
        (b"#!/usr/bin/env python\n# @" + b"generated from x\nx = 1\n", SkipReason.GENERATED),
        (b'"""This file is auto' + b'matically generated; hands off."""\n', SkipReason.GENERATED),
    ],
)
def test_a_file_left_out_by_its_content_says_why(tmp_path: Path, content: bytes, reason: SkipReason) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(content)
    assert read_source(source(file)) is reason


def test_speaking_of_generated_code_does_not_make_a_file_generated(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('"""Trees can be ' + 'generated by the parser.\n"""\nMARK = "do not ' + 'edit"\n')
    assert isinstance(read_source(source(file)), str)


def test_the_text_is_as_an_editor_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(b"\xef\xbb\xbfif x:\r\n\ty = 1\r\n\x0c\r\nz = 2\r")
    assert read_source(source(file)) == "if x:\n\ty = 1\n\x0c\nz = 2\n"


def test_a_file_that_is_gone_is_no_failure(own: OwnRepository) -> None:
    own.commit({"a.py": CODE, "b.py": CODE})
    (own.root / "a.py").unlink()
    assert [read_source(each) for each in repository_files(own.root).files] == [SkipReason.MISSING, CODE]


def test_a_repository_of_somebody_else_is_refused_with_what_trusts_it(
    own: OwnRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.commit({"a.py": CODE})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InvalidInput, match="another user") as refused:
        repository_files(own.root)
    assert refused.value.fix is not None
    assert f"git config --global --add safe.directory {own.root.resolve()}" in refused.value.fix


def test_rules_that_never_end_are_given_up(own: OwnRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    own.commit({"a.py": CODE})
    own.git("config", "core.attributesFile", "/dev/zero")
    assert [each.path for each in repository_files(own.root).files] == ["a.py"]
    os.mkfifo(own.root / ".gitignore")
    monkeypatch.setattr(git, "MAX_ANSWER_S", 0.5)
    with pytest.raises(InvalidInput, match="did not answer"):
        repository_files(own.root)


def test_a_folder_without_git_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    with pytest.raises(InvalidInput, match="git init"):
        repository_files(tmp_path)
    with pytest.raises(InvalidInput, match="not a folder"):
        repository_files(tmp_path / "nowhere")


def test_git_of_another_repository_in_the_environment_is_not_used(
    own: OwnRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.commit({"a.py": CODE})
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert paths(own.root) == ["a.py"]


def test_a_conflict_lists_a_file_once(own: OwnRepository) -> None:
    own.commit({"a.py": CODE})
    own.git("checkout", "--quiet", "-b", "other")
    own.commit({"a.py": "x = 2\n"})
    own.git("checkout", "--quiet", "main")
    own.commit({"a.py": "x = 3\n"})
    with pytest.raises(Exception, match="merge"):
        own.git("merge", "other")
    assert paths(own.root) == ["a.py"]


def test_each_file_has_the_time_of_its_last_commit(own: OwnRepository) -> None:
    assert git.last_commits(own.root, [b"a.py"]) == {}
    own.commit({"a.py": CODE, "b/é.py": CODE}, when=1_000_000)
    own.commit({"a.py": "x = 2\n"}, when=2_000_000)
    own.git("checkout", "--quiet", "--detach")
    wanted = [b"a.py", "b/é.py".encode(), b"never.py"]
    assert git.last_commits(own.root, wanted) == {wanted[0]: 2_000_000, wanted[1]: 1_000_000}
    assert git.last_commits(own.root / "b", ["é.py".encode()]) == {"é.py".encode(): 1_000_000}


def test_plain_folders_are_walked_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/z.py", "b/a.py", "b/test/t.py", "b/site-packages/v.py", "c/a.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CODE)
    (tmp_path / "b/link.py").symlink_to("a.py")
    listing = source_files([(tmp_path / "b", "MIT"), (tmp_path / "c", "PSF-2.0")], ["test/"])
    assert [(each.path, each.licence) for each in listing.files] == [
        ("b/a.py", "MIT"),
        ("b/link.py", "MIT"),
        ("b/z.py", "MIT"),
        ("c/a.py", "PSF-2.0"),
    ]
    assert read_source(listing.files[1]) is SkipReason.LINK
    assert listing.skipped == {SkipReason.IGNORED.value: 1, SkipReason.VENDORED.value: 1}


def test_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a/x").mkdir(parents=True)
    (tmp_path / "b/x").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="two folders"):
        source_files([(tmp_path / "a/x", "MIT"), (tmp_path / "b/x", "MIT")])


STARS = "*a" * 12 + "*b"


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ([STARS, "**/" + "a/**/" * 12 + "b", "[ab]*" * 12 + "x"], ""),
        ([f"**/made{number}/*.py" for number in range(1000)], ""),
        ([f"{STARS}{number}" for number in range(600)], "bad ignore pattern"),
        ([f"{STARS}{number}" for number in range(2000)], "more than 20,000 characters"),
        (["!"], "bad ignore pattern"),
    ],
    ids=["stars", "many", "too much of both", "too long", "wrong"],
)
def test_patterns_of_a_stranger_take_no_longer_than_others(own: OwnRepository, patterns: list[str], says: str) -> None:
    names = {("a" * 60 + "/") * 3 + f"{number}.py": CODE for number in range(3)}
    own.commit({**names, ".peft-daemon.toml": f"[tune]\nignore = {json.dumps(patterns)}\n"})
    if says:
        with pytest.raises(InvalidInput, match=says):
            repository_files(own.root)
    else:
        # As regular expressions of Python's, one name would take longer than anybody waits.
        assert len(repository_files(own.root).files) == 3


def test_a_name_that_is_no_text_is_matched_too() -> None:
    rules = FilePatterns(["*.md"], "here")
    assert rules.match("a\udcff.md")
    assert not rules.match("a\udcff.py")
