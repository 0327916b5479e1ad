"""A broken hole parses and raises where it is reached, whatever part of a line or block it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.structure import parse_structure
from peft_evaluation.repo_tests.preparation import break_hole
from peft_tuning.data.repository.holes import cut_holes

FILES = sorted((Path(__file__).parents[3] / "evaluation" / "peft_evaluation").rglob("*.py"))[::3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a):\n    ⟨return a⟩\n", "raise BaseException"),
        ("def f(a):\n    ⟨b = a\n    return b⟩\n", "raise BaseException"),
        ("x = ⟨1 + 2⟩\n", "(1 // 0)"),
        ("x = f(⟨a, b)⟩\n", "(1 // 0))"),
        ("x = f(⟨a⟩, b)\n", "(1 // 0)"),
        ("x = f(a, ⟨g(b))⟩\n", "(1 // 0))"),
        ("x = [\n    ⟨a,⟩\n]\n", "(1 // 0),"),
        ("if ⟨a and b:⟩\n    pass\n", "(1 // 0):"),
        ("x = self.⟨value⟩\n", "broken_here"),
        ("x = self.⟨value(1)[2]⟩\n", "broken_here"),
        ("val⟨ue = 3⟩\n", "(1 // 0)"),
        ("if ⟨a:⟩\n    pass\n", "(1 // 0):"),
        ("⟨while a.b:⟩\n    pass\n", "while broken_here.b:"),
        ("⟨class A(B):⟩\n    pass\n", "class broken_here(B):"),
        ("⟨return f(⟩\n    3)\n", "return broken_here("),
        ("import o⟨s⟩\n", "broken_here"),
        ("def fo⟨o(x):⟩\n    pass\n", "broken_here(x):"),
        ('x = "abc ⟨defs"⟩\n', 'broken_here"'),
    ],
)
def test_the_first_that_parses_is_taken(text: str, expected: str) -> None:
    before, _, rest = text.partition("⟨")
    middle, _, after = rest.partition("⟩")
    assert break_hole(before, middle, after) == expected


@pytest.mark.parametrize("text", ["x = (⟨a⟩ b c)\n", "not python ⟨at⟩ all\n", "\0⟨a⟩"])
def test_nothing_is_given_where_nothing_parses(text: str) -> None:
    before, _, rest = text.partition("⟨")
    middle, _, after = rest.partition("⟩")
    assert break_hole(before, middle, after) is None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_broken_hole_of_real_code_parses(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    holes = cut_holes(parse_structure(text, "python"), seed="7")
    found = [break_hole(text[: hole.start], text[hole.start : hole.end], text[hole.end :]) for hole in holes]
    for hole, candidate in zip(holes, found, strict=True):
        if candidate is not None:
            assert candidate != text[hole.start : hole.end]
            ast.parse(text[: hole.start] + candidate + text[hole.end :])


def test_nearly_every_hole_of_real_code_can_be_broken() -> None:
    texts = [file.read_text(encoding="utf-8") for file in FILES]
    found = [
        break_hole(text[: hole.start], text[hole.start : hole.end], text[hole.end :])
        for text in texts
        for hole in cut_holes(parse_structure(text, "python"), seed="7")
    ]
    assert len(found) > 200 and found.count(None) < len(found) / 50


@given(before=st.text(), middle=st.text(), after=st.text())
def test_any_text_is_broken_or_given_up(before: str, middle: str, after: str) -> None:
    found = break_hole(before, middle, after)
    assert found != middle or found is None
