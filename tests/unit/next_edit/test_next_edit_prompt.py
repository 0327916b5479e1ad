"""Prompts of next edits: the strings that the families' models were trained with, and what they show."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.edits import LineChange, join_lines
from peft_daemon.next_edit.formats import EDIT_FORMATS, EditFormat
from peft_daemon.next_edit.moment import KnownEdit, Moment
from peft_daemon.next_edit.places import Place, places
from peft_daemon.next_edit.prompt import edit_prompt, shown_path

LINES = ("import os", "", "def area(width):", "    return width", "", "print(area(2))")
CHANGE = LineChange(2, ("def size(width):",), ("def area(width):",))


def moment(*, lines: tuple[str, ...] = LINES, line: int = 2, column: int = 8) -> Moment:
    edits = (KnownEdit("/home/me/shapes/area.py", CHANGE, here=True),)
    return Moment(path="/home/me/shapes/area.py", language="python", lines=lines, line=line, column=column, edits=edits)


def written(form: EditFormat, place: Place) -> str:
    return "".join(segment.text for segment in edit_prompt(moment(), place, form, root="/home/me/shapes"))


def test_the_prompt_of_sweep_s_models() -> None:
    form = EDIT_FORMATS["sweep-edit-v1"]
    segments = edit_prompt(moment(), Place(1, 5, ""), form, root="/home/me/shapes")
    assert "".join(each.text for each in segments) == (
        "<|file_sep|>area.py\n"
        "import os\n\ndef size(width):\n    return width\n\nprint(area(2))\n"
        "\n"
        "<|file_sep|>area.py:2:4\n"
        "original:\n\ndef size(width):\n    return width\n"
        "updated:\n\ndef area(width):\n    return width\n"
        "<|file_sep|>original/area.py:2:5\n\ndef size(width):\n    return width\n\n"
        "<|file_sep|>current/area.py:2:5\n\ndef area<|cursor|>(width):\n    return width\n\n"
        "<|file_sep|>updated/area.py:2:5\n"
    )
    assert [each.text for each in segments if each.special] == ["<|file_sep|>"] * 5


def test_the_prompt_of_zeta_2() -> None:
    assert written(EDIT_FORMATS["zeta-edit-v2"], Place(1, 5, "")) == (
        "<[fim-suffix]>print(area(2))\n\n"
        "<[fim-prefix]><filename>edit_history\n"
        "--- a/area.py\n+++ b/area.py\n-def size(width):\n+def area(width):\n\n"
        "<filename>area.py\n"
        "import os\n"
        "<<<<<<< CURRENT\n\ndef area<|user_cursor|>(width):\n    return width\n\n=======\n"
        "<[fim-middle]>"
    )


def test_the_prompt_of_zeta_1_begins_the_answer() -> None:
    text = written(EDIT_FORMATS["zeta-edit-v1"], Place(1, 5, ""))
    assert text.endswith("### Response:\n\n<|editable_region_start|>\n")
    assert 'User edited "area.py":\n\n```diff\n@@ -2,3 +2,3 @@\n \n-def size(width):\n+def area(width):\n' in text
    assert "import os\n<|editable_region_start|>\n\ndef area<|user_cursor_is_here|>(width):" in text


def test_no_path_names_the_user() -> None:
    assert shown_path("/home/me/shapes/area.py", "/home/me/shapes") == "area.py"
    assert shown_path("/home/me/other/area.py", "/home/me/shapes") == "area.py"
    assert shown_path("src/area.py", "") == "src/area.py"


def test_a_secret_is_not_shown() -> None:
    secret = 'password = "hunter2-9f8a7b6c5d4e3f2a1b0c"'
    text = "".join(
        each.text
        for each in edit_prompt(moment(lines=(*LINES, secret)), Place(1, 5, ""), EDIT_FORMATS["sweep-edit-v1"])
    )
    assert "password" in text and "hunter2" not in text


@given(st.integers(0, len(LINES) - 1))
def test_places_are_windows_of_the_document_that_do_not_overlap(line: int) -> None:
    found = places(moment(line=line))
    assert found[0].start <= line < found[0].end
    assert all(0 <= each.start < each.end <= len(LINES) for each in found)
    taken = sorted((each.start, each.end) for each in found)
    assert all(one[1] <= other[0] for one, other in pairwise(taken))


def test_the_use_of_a_word_that_went_is_a_place() -> None:
    lines = (*LINES, *["pass"] * 20, "size(3)")
    found = places(moment(lines=lines))
    assert any(each.start <= len(lines) - 1 < each.end and "`size`" in each.why for each in found)


def test_words_of_one_length_are_looked_for_in_an_order_that_no_process_changes() -> None:
    words = ("alder", "birch", "cedar", "ebony", "hazel", "larch", "maple", "olive")
    gap = ("pass",) * 20
    uses = [line for word in reversed(words) for line in (f"use({word})", *gap)]
    change = LineChange(0, (f"def f({', '.join(words)}):",), ("def f():",))
    edited = Moment(
        path="trees.py",
        language="python",
        lines=("def f():", *gap, *uses),
        line=0,
        column=8,
        edits=(KnownEdit("trees.py", change, here=True),),
    )
    assert [each.why for each in places(edited)[1:]] == ["`alder` stands here too", "`birch` stands here too"]


def test_the_document_before_the_history_is_found() -> None:
    now = moment()
    assert join_lines(now.before) == join_lines(LINES).replace("def area", "def size")
    assert [now.line_before(each) for each in range(len(LINES))] == list(range(len(LINES)))
