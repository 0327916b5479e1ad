"""Changes of whole lines, and the history they make."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.edits import History, LineChange, join_lines, line_changes, split_lines, with_change

LINES = st.lists(st.sampled_from(["a", "b", "c", "", "  d"]), max_size=12).map(tuple)


@given(LINES, LINES)
def test_the_changes_between_two_texts_lead_from_one_to_the_other(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    lines = old
    for change in line_changes(old, new):
        lines = change.apply(lines)
    assert lines == new


@given(st.text(alphabet="ab\n\r", max_size=20))
def test_lines_are_written_as_they_were_read(text: str) -> None:
    lines = split_lines(text)
    assert split_lines(join_lines(lines)) == lines


@given(LINES, st.data())
def test_a_history_undone_is_the_text_before_it(lines: tuple[str, ...], data: st.DataObject) -> None:
    first, history = lines, History()
    for at in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, len(lines)))
        end = data.draw(st.integers(start, min(len(lines), start + 3)))
        change = LineChange(start, lines[start:end], data.draw(LINES.map(lambda some: some[:3])))
        history = with_change(history, "a.py", lines, change, float(at))
        lines = change.apply(lines)
    undone = lines
    for entry in sorted(history, key=lambda each: each.change.start, reverse=True):
        undone = entry.change.inverse.apply(undone)
    assert undone == first


def test_keystrokes_at_one_place_are_one_entry_and_what_is_changed_back_is_none() -> None:
    lines: tuple[str, ...] = ("def size(self):", "    return 0")
    history = History()
    for step in ("def size_(self):", "def size_o(self):", "def size_of(self):"):
        change = LineChange(0, (lines[0],), (step,))
        history = with_change(history, "a.py", lines, change, 0.0)
        lines = change.apply(lines)
    assert [each.change for each in history] == [LineChange(0, ("def size(self):",), ("def size_of(self):",))]
    back = LineChange(0, (lines[0],), ("def size(self):",))
    assert with_change(history, "a.py", lines, back, 1.0) == ()


def test_entries_move_with_what_is_written_above_them() -> None:
    lines = ("a", "b", "c", "d", "e")
    below = LineChange(4, ("e",), ("E",))
    history = with_change((), "a.py", lines, below, 0.0)
    history = with_change(history, "a.py", below.apply(lines), LineChange(0, (), ("new", "lines")), 1.0)
    assert [each.change.start for each in history] == [6, 0]
