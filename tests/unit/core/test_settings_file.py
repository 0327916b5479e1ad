"""One value of the user's settings file changes, and nothing else in it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import Conflict, InvalidInput, UnusablePath
from peft_core.settings_file import with_setting, write_setting

WRITTEN_BY_HAND = """\
# my settings
threads = 4  # two are for the compiler

model = "old"  # small and quick
feedback = 'off'
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / "config.toml"


def written(file: Path, content: str) -> Path:
    file.parent.mkdir()
    file.write_bytes(content.encode())
    return file


def test_a_file_is_made_that_only_its_owner_can_read(file: Path) -> None:
    assert write_setting(file, "model", "new")
    assert file.read_text() == 'model = "new"\n'
    if sys.platform != "win32":
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_the_value_changes_and_every_other_byte_stays(file: Path) -> None:
    assert write_setting(written(file, WRITTEN_BY_HAND), "model", "new")
    assert file.read_text() == WRITTEN_BY_HAND.replace('"old"', '"new"')


def test_a_new_value_comes_after_the_others(file: Path) -> None:
    assert write_setting(written(file, "threads = 4  # no line end"), "model", "new")
    assert file.read_text() == 'threads = 4  # no line end\nmodel = "new"\n'


def test_the_same_value_writes_nothing(file: Path) -> None:
    written(file, WRITTEN_BY_HAND)
    before = file.stat()
    assert not write_setting(file, "model", "old")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model='old'#c\n", 'model="new"#c\n'),
        ('  "model" = "old"\n', '  "model" = "new"\n'),
        ('# model = "no"\nmodel = "a \\"b\\" # c"\n', '# model = "no"\nmodel = "new"\n'),
        ('threads = 4\r\nmodel = "old"\r\n', 'threads = 4\r\nmodel = "new"\r\n'),
        ("threads = 4\r\n", 'threads = 4\r\nmodel = "new"\r\n'),
        ('\ufeffmodel = "old"\n', '\ufeffmodel = "new"\n'),
        ('model_file = "original"\n', 'model_file = "original"\nmodel = "new"\n'),
        ("", 'model = "new"\n'),
    ],
)
def test_however_it_is_written(file: Path, before: str, after: str) -> None:
    write_setting(written(file, before), "model", "new")
    assert file.read_bytes().decode() == after


@pytest.mark.parametrize(
    "content",
    [
        'model = """\nold"""\n',
        'upstream_adapters = """\nmodel = "old"\n"""\n',
        "model = [3]\n",
        "[table]\nx = 1\n",
    ],
)
def test_what_cannot_be_exchanged_is_left_alone_with_the_line_to_type(file: Path, content: str) -> None:
    written(file, content)
    with pytest.raises(Conflict, match='model = "new"'):
        write_setting(file, "model", "new")
    assert file.read_text() == content


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("threads = 4  # two are for the compiler\n", 8, "threads = 8  # two are for the compiler\n"),
        ("threads = +1_0\n", -1, "threads = -1\n"),
        ("threads = true\n", 1, "threads = 1\n"),
        ("model = 'm'", True, "model = 'm'\nthreads = true\n"),
        (WRITTEN_BY_HAND, None, WRITTEN_BY_HAND.replace("threads = 4  # two are for the compiler\n", "")),
        ("model = 'm'\r\nthreads=4", None, "model = 'm'\r\n"),
        ("model = 'm'\n", None, "model = 'm'\n"),
    ],
)
def test_numbers_and_switches_are_written_and_removed_alike(
    file: Path, before: str, value: int | None, after: str
) -> None:
    assert write_setting(written(file, before), "threads", value) is (before != after)
    assert file.read_bytes().decode() == after


def test_a_file_that_is_not_toml_is_left_alone(file: Path) -> None:
    written(file, "threads = = 4\n")
    with pytest.raises(InvalidInput, match="cannot read"):
        write_setting(file, "model", "new")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot read"):
        write_setting(file, "model", "new")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_stays_a_link_and_its_target_changes(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "peft-daemon.toml"
    kept.parent.mkdir(mode=0o755)
    kept.write_text(WRITTEN_BY_HAND)
    file.parent.mkdir()
    file.symlink_to(kept)
    write_setting(file, "model", "new")
    assert file.is_symlink() and 'model = "new"' in kept.read_text()
    assert kept.parent.stat().st_mode & 0o777 == 0o755


def test_a_file_that_is_a_folder_is_told(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(UnusablePath):
        write_setting(file, "model", "new")
    assert list(file.iterdir()) == []


NAMES = st.sampled_from(["threads", "slots", "log_level", "model_file", "feedback"])
VALUES = st.one_of(
    st.integers(0, 99).map(str), st.sampled_from(['"a # b"', "'model = 1'", "true", '"model = \\"x\\""'])
)
LINES = st.one_of(
    st.just(""), st.text("#model = \"'x ", max_size=20).map(lambda text: "# " + text), st.just('# model = "x"')
)


@given(rows=st.dictionaries(NAMES, VALUES), comments=st.lists(LINES, min_size=6, max_size=6), had=st.booleans())
def test_any_flat_file_means_the_same_but_for_that_value(rows: dict[str, str], comments: list[str], had: bool) -> None:
    lines = [f"{name} = {value}  {comment}" for (name, value), comment in zip(rows.items(), comments, strict=False)]
    content = "\n".join([*comments, *lines, *(['model = "before"'] if had else []), ""])
    changed = with_setting(content, "model", "a-model.1")
    assert tomllib.loads(changed) == {**tomllib.loads(content), "model": "a-model.1"}
    kept = [line for line in changed.splitlines() if not line.startswith("model =")]
    assert kept == [line for line in content.splitlines() if not line.startswith("model =")]
