"""Traces: what is typed becomes the real file, key by key, and everything an editor does is in them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.typing_benchmark import scenarios, trace_maker
from peft_evaluation.typing_benchmark.keystrokes import KeystrokeWriter, TypingManner, bracket_pairs
from peft_evaluation.typing_benchmark.trace_maker import (
    FULL,
    PACKAGES,
    QUICK,
    TraceAmount,
    can_be_typed,
    code_bases,
    fragments,
    line_blocks,
    make_traces,
    overlaps,
    remove_parts,
)
from peft_evaluation.typing_benchmark.traces import Trace, TraceAction, digest_of

CODE = '''"""A module."""

import os


class Box:
    """Holds things."""

    def __init__(self, things: list[str], *, sort: bool = False) -> None:
        self.things = sorted(things) if sort else list(things)

    @property
    def first(self) -> str:
        if not self.things:
            raise ValueError("there is nothing in it")

        return self.things[0]


def collect(folder: str) -> dict[str, int]:
    """Sizes by name."""
    found = {}
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        found[name] = len(
            open(os.path.join(folder, name)).read()
        )
    return found


TABLE = {
    "a": 1,
        "deep": [2, (3, 4)],
  "odd": f"{len('x')}",
}
'''


@pytest.fixture(scope="module")
def full() -> tuple[Trace, ...]:
    return make_traces(FULL, 0)


@given(st.data(), st.integers(0, 10_000), st.sampled_from(["", "mistake", "undo", "retype"]))
def test_whatever_part_is_left_out_writing_it_gives_the_file_back(data: st.DataObject, seed: int, detour: str) -> None:
    lines = [0]
    for line in CODE.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    kind = data.draw(st.sampled_from(["lines", "bit"]))
    if kind == "lines":
        first, last = sorted(data.draw(st.tuples(st.integers(1, 34), st.integers(2, 35)).filter(lambda p: p[0] < p[1])))
        start, end = lines[first] - 1, lines[last] - 1
        if CODE[end - 1] == "\n":
            end -= 1  # what is written ends with a line that is not empty
    else:
        part = data.draw(st.sampled_from(fragments(CODE)))
        start, end = part.start, part.end
    before = CODE[:start] + CODE[end:]
    often = TypingManner(mistake=0.3, retype=0.2, undo=0.2, accept=0.4, think=0.1, detour=detour)
    writer = KeystrokeWriter("code.py", CODE, before, Random(seed), often)
    text = before
    for event in writer.write(start, end, start):
        if event.edit is None:
            continue
        text = event.edit.applied(text)
        assert 0 <= event.cursor <= len(text)
        if event.truth is not None:
            # What stands before the cursor is right, and the truth goes on from there.
            done = text[: event.cursor].rstrip(" ")
            assert CODE.startswith(done)
            assert (done + event.truth.lstrip(" ")).replace(" ", "") == CODE[: len(done)].replace(
                " ", ""
            ) + event.truth.replace(" ", "")
    assert text == CODE


def test_a_bracket_comes_with_its_partner_which_is_overwritten_later() -> None:
    original = "x = f(ab)\n"
    writer = KeystrokeWriter("x.py", original, "x = \n", Random(0), TypingManner(0, 0, 0, 0, 0))
    edits = [event.edit for event in writer.write(4, 9, 4) if event.edit is not None]
    assert [(edit.start, edit.end, edit.text) for edit in edits] == [
        (4, 4, "f"),
        (5, 5, "()"),
        (6, 6, "a"),
        (7, 7, "b"),
        (8, 9, ")"),
    ]


def test_a_bracket_before_a_word_comes_alone() -> None:
    original = "x = (ab)cd\n"
    writer = KeystrokeWriter("x.py", original, "x = cd\n", Random(0), TypingManner(0, 0, 0, 0, 0))
    edits = [event.edit for event in writer.write(4, 8, 4) if event.edit is not None]
    assert [edit.text for edit in edits] == ["(", "a", "b", ")"]


def test_partners_are_found_outside_of_strings_and_on_one_line() -> None:
    text = 'a = f("(", [1])\nb = (\n    2\n)\n'
    assert bracket_pairs(text) == {5: 14, 11: 13}
    assert bracket_pairs("# \u2028\x85\x0c\na = (1)\n") == {10: 12}


def test_enter_brings_the_indentation_and_an_empty_line_loses_it() -> None:
    original = "def f():\n    a = 1\n\n    return a\n"
    writer = KeystrokeWriter("f.py", original, "def f():\n", Random(0), TypingManner(0, 0, 0, 0, 0))
    edits = [event.edit for event in writer.write(8, 32, 8) if event.edit is not None]
    assert edits[0].text == "\n    "
    after_the_statement = [edit for edit in edits if "\n" in edit.text][1:]
    assert [(edit.end - edit.start, edit.text) for edit in after_the_statement] == [(0, "\n    "), (4, "\n    ")]


def test_every_trace_writes_its_files_as_they_really_are(full: tuple[Trace, ...]) -> None:
    for trace in full:
        assert trace.texts() == {file.name: file.original for file in trace.files}
        assert any(file.before != file.original for file in trace.files)


def test_a_full_run_has_twelve_traces_of_four_code_bases_with_all_kinds_of_editing(full: tuple[Trace, ...]) -> None:
    assert len(full) >= 12
    assert len({trace.code_base for trace in full}) >= 4
    for trace in full:
        assert len(trace.covers) >= 5, trace.id
        assert any(event.counts for event in trace.events)
    assert {kind for trace in full for kind in trace.covers} == {
        "accept",
        "cold open",
        "delete and retype",
        "edit in the middle",
        "jump",
        "lines in order",
        "mistake",
        "pause",
        "save",
        "switch files",
        "undo",
    }


def test_nothing_is_typed_that_the_shipped_adapters_were_tuned_on() -> None:
    known = (Path(__file__).parents[3] / "docs/adapters.md").read_text()
    assert "more-itertools" in known
    for name in PACKAGES:
        assert f" {name} " not in known
        assert f" {name}," not in known


def test_a_full_run_is_budgeted_below_forty_minutes_and_a_quick_one_below_five(full: tuple[Trace, ...]) -> None:
    assert 3 * sum(trace.seconds + 4 for trace in full) < 32 * 60
    assert 3 * sum(trace.seconds + 4 for trace in make_traces(QUICK, 0)) < 3.5 * 60


def test_the_same_seed_makes_the_same_traces_and_another_makes_others() -> None:
    small = TraceAmount(traces=2, seconds=20, files=1)
    assert digest_of(make_traces(small, 3)) == digest_of(make_traces(small, 3))
    assert digest_of(make_traces(small, 3)) != digest_of(make_traces(small, 4))


def test_keys_follow_each_other_as_people_type(full: tuple[Trace, ...]) -> None:
    pauses = [event.wait_s for trace in full for event in trace.events if event.kind is TraceAction.KEY]
    assert 0.2 < sum(pauses) / len(pauses) < 0.45
    assert min(pauses) >= 0.05


def test_parts_that_are_left_out_together_do_not_touch() -> None:
    found = trace_maker.choose_parts(CODE, 150, Random(1))
    assert found
    assert all(not overlaps(one, other) for one in found for other in found if one is not other)
    assert len(remove_parts(CODE, found)) == len(CODE) - sum(part.end - part.start for part in found)


def test_docstrings_are_not_typed() -> None:
    for part in line_blocks(CODE, 1, 1000):
        assert '"""' not in CODE[part.start : part.end]


@pytest.mark.parametrize(
    "text", ["x = 1\n" * 10, "\tx = 1\n" * 200, "x = (\n" * 200, "x = 1\n    \n" * 100, "x = 1\n" * 200]
)
def test_a_file_that_cannot_be_typed_is_left_out(text: str) -> None:
    assert not can_be_typed(text)


def test_a_folder_of_ones_own_is_typed_instead(tmp_path: Path) -> None:
    padding = "".join(f"value_{number} = {number}\n" for number in range(110))
    for number in range(4):
        (tmp_path / f"one{number}.py").write_text(CODE + padding + f"end = {number}\n")
    (tmp_path / "test_one.py").write_text(CODE + padding)
    traces = make_traces(TraceAmount(traces=2, seconds=68, files=2), 0, [tmp_path])
    assert {file.name for trace in traces for file in trace.files} <= {f"one{number}.py" for number in range(4)}
    with pytest.raises(InvalidInput, match="only 2 of 3"):
        make_traces(TraceAmount(traces=3, seconds=68, files=2), 0, [tmp_path])


def test_a_folder_without_files_to_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no Python file to type"):
        make_traces(QUICK, 0, [tmp_path])
    with pytest.raises(InvalidInput, match="is not a folder"):
        make_traces(QUICK, 0, [tmp_path / "missing"])


def test_a_file_is_opened_cold_and_one_key_is_typed_in_its_middle() -> None:
    scene = next(found for base in code_bases([], Random(0)) if (found := scenarios.scene_of(base)))
    trace = scenarios.cold(scene, 2.0)
    assert 250 <= scene.original.count("\n") <= 360
    (key,) = [event for event in trace.events if event.counts]
    (file,) = trace.files
    after = key.edit.applied(file.before)
    assert scene.original.startswith(after[: key.cursor])
    assert scene.original[key.cursor :].startswith(str(key.truth))


def test_reopening_goes_on_where_the_file_was_left() -> None:
    scene = next(found for base in code_bases([], Random(0)) if (found := scenarios.scene_of(base)))
    trace = scenarios.reopened(scene, 2.0)
    kinds = [event.kind for event in trace.events]
    assert kinds.index(TraceAction.SAVE) < kinds.index(TraceAction.RESTART) < kinds.index(TraceAction.OPEN, 1)
    # Both keys count, so that the pause behind the first lasts until it is answered.
    assert [event.kind for event in trace.events if event.counts] == [TraceAction.KEY, TraceAction.KEY]
    assert [event.until_shown for event in trace.events if event.kind is TraceAction.PAUSE] == [True, False, True]
    (text,) = trace.texts().values()
    last = trace.events[-2]
    assert scene.original.startswith(text[: last.cursor])
