"""What is on the screen after edits and answers, and how good it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_evaluation.typing_benchmark.screen import GhostText, Screen, ScreenSuggestion, judge, next_line
from peft_evaluation.typing_benchmark.traces import TraceEdit


def typed(screen: Screen, text: str) -> Screen:
    for character in text:
        screen = screen.edited(TraceEdit(screen.cursor, screen.cursor, character), screen.cursor + 1)
    return screen


def offered(document: str, text: str, *, over: int = 0) -> Screen:
    """A suggestion at the mark ``|``."""
    cursor = document.index("|")
    return Screen(document.replace("|", ""), cursor).offered(GhostText(cursor, cursor + over, text))


def test_ghost_text_stays_while_what_is_typed_agrees() -> None:
    screen = typed(offered("x = |\n", "value + 1"), "val")
    assert screen.shown == ScreenSuggestion("ue + 1", 0)


def test_another_character_hides_it_for_good() -> None:
    screen = typed(offered("x = |\n", "value"), "vx")
    assert screen.shown is None
    back = screen.edited(TraceEdit(screen.cursor - 1, screen.cursor, ""), screen.cursor - 1)
    assert back.shown is None


def test_a_backspace_over_what_agreed_shows_it_again() -> None:
    screen = typed(offered("x = |\n", "value"), "va")
    assert screen.edited(TraceEdit(5, 6, ""), 5).shown == ScreenSuggestion("alue", 0)


def test_a_backspace_before_it_hides_it() -> None:
    assert offered("x = |\n", "value").edited(TraceEdit(3, 4, ""), 3).shown is None


def test_moving_the_cursor_hides_it() -> None:
    assert offered("x = |\n", "value").moved(0).moved(4).shown is None


def test_typed_to_its_end_nothing_is_shown() -> None:
    assert typed(offered("x = |\n", "ab"), "ab").shown is None


def test_a_bracket_that_brings_its_partner_agrees_with_a_call() -> None:
    screen = offered("x = f|\n", "(a, b)")
    screen = screen.edited(TraceEdit(5, 5, "()"), 6)
    assert screen.shown == ScreenSuggestion("a, b)", 1)
    assert typed(screen, "a").shown == ScreenSuggestion(", b)", 1)


def test_an_answer_does_not_replace_what_still_agrees_but_more_of_it_does() -> None:
    screen = typed(offered("x = |\n", "value"), "v")
    assert screen.offered(GhostText(5, 5, "other")).shown == ScreenSuggestion("alue", 0)
    assert screen.grown(GhostText(5, 5, "alue + 1")).shown == ScreenSuggestion("alue + 1", 0)
    assert screen.grown(GhostText(5, 5, "other")).shown == ScreenSuggestion("alue", 0)


def test_an_answer_with_nothing_leaves_what_is_shown() -> None:
    assert offered("x = |\n", "value").offered(None).shown == ScreenSuggestion("value", 0)


@given(st.text("ab(\n", min_size=1, max_size=8), st.integers(0, 8))
def test_typing_a_suggestion_itself_never_hides_it_before_its_end(text: str, count: int) -> None:
    screen = typed(offered("x|\n", text), text[:count])
    rest = text[count:]
    assert (screen.shown.text if screen.shown else "") == rest


def test_a_line_is_exact_with_the_bracket_that_stands_behind_it() -> None:
    screen = offered("x = f(|)\n", "a, b")
    assert judge(screen, "a, b)\n").exact
    assert judge(screen, "a, c)\n") == judge(screen, "a, c)\n")
    assert not judge(screen, "a, c)\n").exact


def test_what_overwrites_the_bracket_is_exact_as_well() -> None:
    assert judge(offered("x = f(|)\n", "a, b):", over=1), "a, b):\n").exact


def test_a_long_suggestion_is_judged_by_its_line_and_costs_what_is_wrong_of_it() -> None:
    judged = judge(offered("x = |\n", "1\ny = 2\n"), "1\ny = 3\n")
    assert judged.exact
    assert (judged.right, judged.offered) == (6, 8)


def test_at_a_lines_end_the_next_line_counts() -> None:
    assert next_line("\n\n    return 1  \nx") == "\n    return 1"
    assert judge(offered("x = 1|\n", "\ny = 2"), "\ny = 2\n").exact
    assert not judge(offered("x = 1|\n", "y = 2"), "\ny = 2\n").exact


def test_silence_is_worth_nothing() -> None:
    judged = judge(Screen("x = ", 4), "1\n")
    assert (judged.exact, judged.similarity, judged.offered) == (False, 0.0, 0)
