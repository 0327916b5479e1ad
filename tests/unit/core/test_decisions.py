"""`why` says in words what became of requests: the last suggestion, the last silence that matters, a list."""

from __future__ import annotations

import itertools

import pytest

from peft_core.api_types import Timings
from peft_core.code.document import document_name
from peft_core.decisions import (
    REPLACED,
    STEP_WORDS,
    Decider,
    RequestDecision,
    WhyQuery,
    explain,
    why,
    why_text,
)
from peft_daemon.completion.stream import FILL_STEPS, INTENT_STEPS

NUMBERS = itertools.count()


def decision(decider: Decider, *, at: float = 0.0, characters: int = 0, **fields: object) -> RequestDecision:
    return RequestDecision(id=f"id{next(NUMBERS)}", at=at, decider=decider, characters=characters, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("decider", Decider)
def test_every_part_that_decides_has_words(decider: Decider) -> None:
    for detail in ("", "it broke"):
        words = explain(decision(decider, detail=detail)).words
        assert "{" not in words
        assert words == words.strip(" :")
    assert explain(decision(decider, detail="it broke")).words


def test_every_step_of_post_processing_that_can_leave_nothing_has_words() -> None:
    adding = {"use_document_style", "fit_indentation", "place_at_cursor"}
    assert {step.__name__ for step in (*FILL_STEPS, *INTENT_STEPS)} - adding == set(STEP_WORDS)
    emptied = explain(decision(Decider.POSTPROCESSING, detail="drop_secrets"))
    assert "looks like a key" in emptied.words


def test_keys_that_took_the_place_of_others_do_not_hide_the_silence_that_matters() -> None:
    noted = [
        decision(Decider.MODEL, at=1, characters=5),
        decision(Decider.IN_WORD, at=2),
        *(decision(each, at=3) for each in REPLACED),
    ]
    answer = why(noted, WhyQuery())
    assert answer.shown is not None
    assert answer.shown.decision.at == 1
    assert answer.silent is not None
    assert answer.silent.decision.decider is Decider.IN_WORD
    assert answer.replaced == len(REPLACED)
    assert answer.decisions == []
    only = why(noted[2:], WhyQuery())
    assert only.shown is None
    assert only.silent is not None
    assert only.silent.decision.decider in REPLACED


def test_a_list_has_the_newest_first_and_as_many_as_asked_for() -> None:
    noted = [decision(Decider.MODEL, at=at, characters=1) for at in (3, 1, 2)]
    assert [each.decision.at for each in why(noted, WhyQuery(last=2)).decisions] == [3, 2]


@pytest.mark.parametrize(
    ("file", "matches"),
    [("", True), ("app.py", True), ("/home/me/shop/src/app.py", True), ("src\\app.py", True), ("other/app.py", False)],
)
def test_a_file_is_named_by_its_path_or_the_end_of_it(file: str, matches: bool) -> None:
    noted = [decision(Decider.MODEL, characters=1, document="src/app.py")]
    assert (why(noted, WhyQuery(file=file)).shown is not None) is matches


@pytest.mark.parametrize(
    ("path", "workspace", "name"),
    [
        ("/home/me/shop/src/app.py", "/home/me/shop", "src/app.py"),
        ("/home/me/shop/src/app.py", "/home/me/sho", "app.py"),
        ("/home/me/shop/src/app.py", None, "app.py"),
        ("C:\\Users\\me\\shop\\src\\app.py", "C:\\Users\\me\\shop", "src/app.py"),
        ("C:\\Users\\me\\app.py", None, "app.py"),
        (None, "/home/me", ""),
    ],
)
def test_a_document_is_named_below_its_workspace_and_never_by_its_whole_path(
    path: str | None, workspace: str | None, name: str
) -> None:
    assert document_name(path, workspace) == name


def test_the_text_says_when_where_why_and_what_to_do() -> None:
    timings = Timings(prompt_evaluated=96, prompt_ms=120, decode_tokens=14, decode_ms=88, total_ms=212)
    noted = [
        decision(
            Decider.MODEL,
            at=1,
            characters=38,
            document="src/app.py",
            line=12,
            column=5,
            model="tiny",
            adapter="mine",
            paused_ms=80,
            timings=timings,
        ),
        decision(Decider.IN_WORD, at=2, document="src/app.py", line=3, column=1),
        decision(Decider.DELAY, at=3),
    ]
    text = why_text(why(noted, WhyQuery()))
    assert "src/app.py:12:5  38 characters" in text
    assert "tiny, adapter mine, paused 80 ms, read 96 tokens in 120 ms, wrote 14 in 88 ms, 212 ms in all" in text
    assert "src/app.py:3:1  nothing" in text
    assert "→ Move the cursor behind the word" in text
    assert "newer keys took the place of 1" in text
    assert why_text(why([], WhyQuery())).count("none was noted") == 2
