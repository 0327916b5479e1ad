"""What a suggested edit is worth: exact, similar, quiet, or taking back what was just done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from peft_core.code.edits import EditedPlace, LineChange, Lines, line_changes
from peft_evaluation.edit_benchmark.scenarios import AnswerDistance, EditScenario, ScenarioKind
from peft_evaluation.edit_benchmark.scores import (
    insertion,
    is_exact,
    is_insertion_at,
    leads_to,
    place_found,
    reversal,
    scores,
    similarity,
)

LINES = st.lists(st.sampled_from(["a = b", "c(d)", "", "    e", "f  "]), min_size=1, max_size=8).map(tuple)
BEFORE = ("def area(width, height):", "    return width * height", "", "print(area(1, 2))")
RENAMED = LineChange(0, BEFORE[:1], ("def area(size, height):",))
NOW = RENAMED.apply(BEFORE)
ANSWER = LineChange(1, BEFORE[1:2], ("    return size * height",))


def scenario(
    kind: ScenarioKind = ScenarioKind.ANSWER, *, line: int = 0, column: int = 23, answer: LineChange | None = ANSWER
) -> EditScenario:
    return EditScenario(
        repository="r",
        commit="c" * 40,
        path="a.py",
        language="python",
        kind=kind,
        distance=AnswerDistance.NEAR if kind is ScenarioKind.ANSWER else None,
        lines=NOW,
        after=ANSWER.apply(NOW) if kind is ScenarioKind.ANSWER else NOW,
        history=(EditedPlace("a.py", RENAMED, 0.0),),
        line=line,
        column=column,
        answer=answer if kind is ScenarioKind.ANSWER else None,
    )


@st.composite
def changes(draw: st.DrawFn, lines: Lines) -> LineChange:
    start = draw(st.integers(0, len(lines)))
    end = draw(st.integers(start, len(lines)))
    return LineChange(start, lines[start:end], draw(LINES))


@given(LINES, st.data())
def test_a_change_is_exact_if_it_makes_the_same_document(lines: Lines, data: st.DataObject) -> None:
    change, answer = data.draw(changes(lines)), data.draw(changes(lines))
    same = [each.rstrip() for each in change.apply(lines)] == [each.rstrip() for each in answer.apply(lines)]
    assert is_exact(lines, change, answer) == same
    assert is_exact(lines, answer, answer)
    assert (similarity(lines, change, answer) == 1.0) == same
    assert 0.0 <= similarity(lines, change, answer) <= 1.0


def test_the_answer_is_exact_however_many_lines_around_it_are_written_again() -> None:
    whole = LineChange(0, NOW, ANSWER.apply(NOW))
    for change in (ANSWER, whole):
        assert scores(scenario(), change).exact
        assert scores(scenario(), change).similarity == 1.0


@given(LINES, LINES, st.data())
def test_each_change_that_leads_to_a_later_text_leads_to_it_in_any_order(
    now: Lines, after: Lines, data: st.DataObject
) -> None:
    changes_made = line_changes(now, after)
    assume(changes_made)
    # Those above it are not made: it is moved to where it would begin without them.
    which = data.draw(st.integers(0, len(changes_made) - 1))
    start = changes_made[which].start - sum(each.growth for each in changes_made[:which])
    only = LineChange(start, changes_made[which].old, changes_made[which].new)
    if [each.rstrip() for each in only.apply(now)] != [each.rstrip() for each in now]:
        assert leads_to(now, only, after) or is_not_shortest(now, after)
    assert not leads_to(now, LineChange(0, (), ("zzz",)), after)
    assert not leads_to(after, LineChange(0, after, (*after, "zzz")), after)


def is_not_shortest(now: Lines, after: Lines) -> bool:
    """Whether the changes between two texts are more than there have to be: the search for them is not exhaustive."""
    found = sum(len(each.old) + len(each.new) for each in line_changes(now, after))
    return found > Indel.distance([each.rstrip() for each in now], [each.rstrip() for each in after])


def test_a_later_change_of_the_commit_is_of_it_but_not_exact() -> None:
    moment = replace(scenario(), after=("def area(size, height):", "    return size * height", "", "print(area(3, 2))"))
    later = scores(moment, LineChange(3, NOW[3:], ("print(area(3, 2))",)))
    assert (later.exact, later.of_commit, later.false) == (False, True, False)
    other = scores(moment, LineChange(3, NOW[3:], ("print(area(3, 3))",)))
    assert (other.exact, other.of_commit, other.false) == (False, False, True)


def test_without_a_suggestion_there_is_no_similarity_to_be_had() -> None:
    found = scores(scenario(), None)
    assert (found.shown, found.exact, found.similarity, found.quiet) == (False, False, 0.0, None)


def test_a_suggestion_for_other_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="other lines"):
        scores(scenario(), LineChange(0, ("something else",), ("x",)))


@pytest.mark.parametrize("kind", [ScenarioKind.FINISHED, ScenarioKind.UNRELATED, ScenarioKind.HALF_WORD])
def test_where_nothing_is_right_only_silence_is(kind: ScenarioKind) -> None:
    assert scores(scenario(kind), None).quiet
    shown = scores(scenario(kind), ANSWER)
    assert (shown.quiet, shown.false, shown.exact) == (False, True, False)


def test_finishing_a_half_typed_word_at_the_cursor_is_no_false_edit_and_elsewhere_it_is() -> None:
    half = scenario(ScenarioKind.HALF_WORD, line=3, column=8)
    finished = insertion(half.lines, 3, 8, "_of_all")
    assert finished is not None
    assert finished.new == ("print(ar_of_allea(1, 2))",)
    assert scores(half, finished).quiet
    assert not scores(half, ANSWER).quiet
    assert not scores(scenario(ScenarioKind.FINISHED, line=3, column=8), finished).quiet


@given(LINES, st.data())
def test_an_insertion_is_one(lines: Lines, data: st.DataObject) -> None:
    line = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[line])))
    change = insertion(lines, line, column, data.draw(st.text(alphabet="ab \n", max_size=6)))
    assert change is None or is_insertion_at(change, line, column)


def test_undoing_the_history_is_a_reversal_wholly_or_in_part() -> None:
    assert reversal(scenario(), RENAMED.inverse) == 1.0
    partly = LineChange(0, NOW[:1], ("def area(wize, height):",))
    assert reversal(scenario(), partly) > 0.5
    assert reversal(scenario(), ANSWER) < 0.5
    assert reversal(scenario(), LineChange(3, NOW[3:], ("print(area(3, 4))",))) == 0.0


@given(LINES, LINES, st.data())
def test_a_reversal_is_a_share_and_that_of_the_undone_history_is_whole(
    before: Lines, after: Lines, data: st.DataObject
) -> None:
    made = LineChange(0, before, after)
    assume(tuple(each.rstrip() for each in before) != tuple(each.rstrip() for each in after))
    moment = EditScenario(
        repository="r",
        commit="c",
        path="a.py",
        language="python",
        kind=ScenarioKind.FINISHED,
        distance=None,
        lines=after,
        after=after,
        history=(EditedPlace("a.py", made, 0.0),),
        line=0,
        column=0,
        answer=None,
    )
    assert reversal(moment, made.inverse) == 1.0
    assert 0.0 <= reversal(moment, data.draw(changes(after))) <= 1.0


def test_a_place_is_found_if_its_window_has_the_whole_answer() -> None:
    assert place_found(scenario()) is True
    assert place_found(scenario(ScenarioKind.FINISHED)) is None
    far = EditScenario(
        repository="r",
        commit="c",
        path="a.py",
        language="python",
        kind=ScenarioKind.ANSWER,
        distance=AnswerDistance.FAR,
        lines=(*NOW, *("x" for _ in range(40)), "unrelated()"),
        after=(*NOW, *("x" for _ in range(40)), "related()"),
        history=scenario().history,
        line=0,
        column=0,
        answer=LineChange(44, ("unrelated()",), ("related()",)),
    )
    assert place_found(far) is False
