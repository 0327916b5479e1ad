"""What an answer changes, what takes back the history, and the edits that need no model."""

from __future__ import annotations

from peft_core.api_types import Eagerness, FinishReason
from peft_core.code.edits import LineChange, join_lines
from peft_core.next_edit_types import EditSilence, NextEditRequest, PastEdit
from peft_daemon.completion.confidence import WrittenToken
from peft_daemon.next_edit.answer import WrittenWindow, draft
from peft_daemon.next_edit.formats import DEFAULT
from peft_daemon.next_edit.gate import LEAST, confidence
from peft_daemon.next_edit.moment import KnownEdit, Moment, of_request
from peft_daemon.next_edit.places import Place
from peft_daemon.next_edit.renaming import renamed_words, renaming

LINES = ("def area(width, unit):", "    return width", "", "area(2)", "area(3)")
EDIT = KnownEdit("a.py", LineChange(0, ("def area(width):",), ("def area(width, unit):",)), here=True)
NOW = Moment(path="a.py", language="python", lines=LINES, line=0, column=22, edits=(EDIT,))
WHOLE = Place(0, 5, "")


def answered(*lines: str, logprob: float = -0.1, reason: FinishReason = FinishReason.STOP) -> WrittenWindow:
    tokens, at = [], 0
    for line in lines:
        tokens.append(WrittenToken(at, at + len(line) + 1, logprob))
        at += len(line) + 1
    return WrittenWindow(join_lines(lines), tuple(tokens), reason)


def test_a_change_is_what_differs_and_is_judged_by_its_own_tokens() -> None:
    found = draft(NOW, WHOLE, answered(*LINES[:3], 'area(2, "cm")', 'area(3, "cm")', logprob=-0.2), DEFAULT)
    assert found.change == LineChange(3, LINES[3:], ('area(2, "cm")', 'area(3, "cm")'))
    assert found.silence is None
    assert found.found.known == 2


def test_the_same_lines_are_no_edit_and_white_space_is_none() -> None:
    for lines in (LINES, (*LINES[:4], "area( 3)")):
        assert draft(NOW, WHOLE, answered(*lines), DEFAULT).silence is EditSilence.UNCHANGED


def test_an_answer_that_was_cut_off_or_runs_on_is_none() -> None:
    cut = answered(*LINES[:2], reason=FinishReason.LENGTH)
    assert draft(NOW, WHOLE, cut, DEFAULT).silence is EditSilence.BROKEN
    endless = answered(*LINES, *(["area(4)"] * 30))
    assert draft(NOW, WHOLE, endless, DEFAULT).silence is EditSilence.BROKEN


def test_what_takes_back_the_history_is_told() -> None:
    back = draft(NOW, WHOLE, answered("def area(width):", *LINES[1:]), DEFAULT)
    assert back.silence is EditSilence.REVERSAL
    further = draft(NOW, WHOLE, answered("def area(width, unit, name):", *LINES[1:]), DEFAULT)
    assert further.silence is None


def test_a_likelier_edit_has_more_confidence_and_less_eagerness_asks_for_more() -> None:
    changed = (*LINES[:3], 'area(2, "cm")', LINES[4])
    sure, unsure = (draft(NOW, WHOLE, answered(*changed, logprob=each), DEFAULT) for each in (-0.01, -3.0))
    assert confidence(sure, 0) > confidence(unsure, 0)
    assert LEAST[Eagerness.LOW] > LEAST[Eagerness.MEDIUM] > LEAST[Eagerness.HIGH] > LEAST[None]


def test_a_word_that_was_replaced_everywhere_is_renamed() -> None:
    assert renamed_words(LineChange(0, ("def size(a):", "  size"), ("def area(a):", "  area"))) == {"size": "area"}
    assert renamed_words(LineChange(0, ("size = size",), ("area = size",))) == {}
    assert renamed_words(LineChange(0, ("size(a)",), ("size(a, b)",))) == {}


def test_the_nearest_uses_of_a_renamed_word_are_suggested() -> None:
    lines = ("size()", "def area():", "    pass", "resize()", "x = size()", "y = size() + size()", "", "size()  # size")
    edit = KnownEdit("a.py", LineChange(1, ("def size():",), ("def area():",)), here=True)
    now = Moment(path="a.py", language="python", lines=lines, line=1, column=11, edits=(edit,))
    assert renaming(now) == LineChange(4, lines[4:5], ("x = area()",))
    taken = KnownEdit("a.py", LineChange(4, ("x = size()",), ("x = area()",)), here=True)
    lines = (*lines[:4], "x = area()", *lines[5:])
    then = Moment(path="a.py", language="python", lines=lines, line=4, column=10, edits=(edit, taken))
    assert renaming(then) == LineChange(5, lines[5:6], ("y = area() + area()",))


def test_edits_that_do_not_fit_the_document_are_left_out() -> None:
    edits = [
        PastEdit("a.py", 0, "def area(width):\n", "def area(width, unit):\n"),
        PastEdit("a.py", 40, "", "something else\n"),
        PastEdit("/home/me/.env", 0, "", "TOKEN=1\n"),
        PastEdit("b.py", 7, "old\n", "new\n"),
    ]
    found = of_request(NextEditRequest(text=join_lines(LINES), line=0, column=0, edits=edits, path="a.py"))
    assert [(each.path, each.here) for each in found.edits] == [("a.py", True), ("b.py", False)]


def test_a_name_is_not_renamed_in_words_that_are_no_code() -> None:
    lines = ("def area():", '    """The', "    size()", '    """', 'print("size")  # size', "shape.size()")
    edit = KnownEdit("a.py", LineChange(0, ("def size():",), ("def area():",)), here=True)
    now = Moment(path="a.py", language="python", lines=lines, line=0, column=8, edits=(edit,))
    assert renaming(now) is None


def test_a_parameter_is_renamed_in_its_own_block() -> None:
    lines = ("def area(side):", "    return width * width", "", "width = 3")
    edit = KnownEdit("a.py", LineChange(0, ("def area(width):",), ("def area(side):",)), here=True)
    now = Moment(path="a.py", language="python", lines=lines, line=0, column=15, edits=(edit,))
    assert renaming(now) == LineChange(1, (lines[1],), ("    return side * side",))
