"""One line per piece of work: nothing that was whole is lost, nothing torn is read."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import Conflict, NoSpace
from peft_evaluation.journal import Journal
from support.limited_files import files_of_at_most


class Line(msgspec.Struct, frozen=True):
    text: str


def test_what_was_appended_is_read_in_order_by_anyone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, Line) as journal:
        journal.append(Line("one"))
        assert list(Journal(path, Line).read()) == [Line("one")], "it is there at once"
        journal.append(Line("two\nlines"))
    with Journal(path, Line) as journal:
        journal.append(Line("three"))
    assert [line.text for line in Journal(path, Line).read()] == ["one", "two\nlines", "three"]


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    assert list(Journal(tmp_path / "none", Line).read()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_result_that_finds_no_room_is_told_and_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, Line) as journal:
        journal.append(Line("one"))
        with files_of_at_most(20), pytest.raises(NoSpace, match="disk is full"):
            journal.append(Line("two, which is long"))
        journal.append(Line("three"))
    assert [line.text for line in Journal(path, Line).read()] == ["one", "three"]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8") | st.sampled_from("\u2028\u2029\x85\n"), max_size=8),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_a_line_torn_anywhere_is_dropped_and_the_rest_stays(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("j") / "a.jsonl"
    with Journal(path, Line) as journal:
        for text in texts:
            journal.append(Line(text))
    whole = path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[: data.draw(st.integers(last, len(whole) - 1))])
    with Journal(path, Line) as journal:
        assert [line.text for line in journal.read()] == texts[:-1]
        journal.append(Line("again"))
    assert [line.text for line in Journal(path, Line).read()] == [*texts[:-1], "again"]


def test_a_damaged_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"one"}\n{"text":\n{"text":"three"}\n')
    with pytest.raises(Conflict, match="line 2"):
        list(Journal(path, Line).read())


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl", Line) as journal:
        journal.append(Line("private"))
    assert stat.S_IMODE((tmp_path / "a.jsonl").stat().st_mode) == 0o600


def test_appending_to_a_closed_journal_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not open"):
        Journal(tmp_path / "a.jsonl", Line).append(Line("x"))


def test_only_one_process_appends_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path, Line) as first:
        with pytest.raises(Conflict, match="another process"), Journal(path, Line):
            pass
        first.append(Line("one"))
    with Journal(path, Line) as second:
        second.append(Line("two"))
    assert len(list(Journal(path, Line).read())) == 2
