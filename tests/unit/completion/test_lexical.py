"""What is open at a point of a text, compared with Python's own tokenizer on real files."""

from __future__ import annotations

import ast
import io
import random
import textwrap
import tokenize
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.code.lexer import LexerState, scan, without_comment

STDLIB = Path(textwrap.__file__).parent
FILES = ("textwrap.py", "shlex.py", "difflib.py", "csv.py", "string.py", "configparser.py")


@pytest.mark.parametrize(
    ("text", "stack", "comment"),
    [
        ("f(a, [1", (")", "]"), ""),
        ("f(')', \"(\", ", (")",), ""),
        ('x = """ab', ('"""',), ""),
        ("x = '''a\"\"\"", ("'''",), ""),
        ('x = "a\\"', ('"',), ""),
        ('x = "', ('"',), ""),
        ('x = ""', (), ""),
        ('x = "abc\ny = (', (")",), ""),
        ('a = "x\\\n y', ('"',), ""),
        ("a # (", (), "\n"),
        ("a # (\nb", (), ""),
        ("foo(\n  a\ndef f(", (")",), ""),
        ("(]", (")",), ""),
    ],
)
def test_python(text: str, stack: tuple[str, ...], comment: str) -> None:
    assert scan(text, "python").state == LexerState(stack, comment)


@pytest.mark.parametrize(
    ("language", "text", "stack", "comment"),
    [
        ("javascript", "f(`a\n${b}", (")", "`"), ""),
        ("javascript", "a /* b", (), "*/"),
        ("javascript", "a /* b */ {", ("}",), ""),
        ("c", "int a; // x (", (), "\n"),
        ("rust", "fn f<'a>(x: &'a str", (")",), ""),
        ("markdown", "It's a (list", (")",), ""),
    ],
)
def test_other_languages(language: str, text: str, stack: tuple[str, ...], comment: str) -> None:
    assert scan(text, language).state == LexerState(stack, comment)


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_leaves_nothing_open(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    ast.parse(source)
    assert scan(source, "python").state == LexerState()


@pytest.mark.parametrize("name", FILES)
def test_strings_comments_and_brackets_agree_with_python_s_tokenizer(name: str) -> None:
    source = (STDLIB / name).read_text(encoding="utf-8")
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    inside: dict[int, str] = {}
    depths: list[tuple[int, int]] = [(0, 0)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            quotes = len(token.string) - len(token.string.lstrip("rRbBuUfF"))
            opened = begin + quotes + (3 if token.string[quotes : quotes + 3] in ('"""', "'''") else 1)
            kind = "comment" if token.type == tokenize.COMMENT else "string"
            inside.update(dict.fromkeys(range(opened, end + (kind == "comment")), kind))
        elif token.type == tokenize.OP and token.string in "()[]{}":
            depths.append((end, depths[-1][1] + (1 if token.string in "([{" else -1)))
    chosen = random.Random(name).sample(range(len(source)), 40)
    for at in chosen:
        state = scan(source[:at], "python").state
        kind = "comment" if state.comment else "string" if state.string else ""
        if inside.get(at, "") != kind:
            # Between the quotes of an opening or closing triple quote both readings are right.
            assert "'" in source[at - 3 : at + 3] or '"' in source[at - 3 : at + 3], (at, source[at - 40 : at])
            continue
        depth = next(d for end, d in reversed(depths) if end <= at)
        assert len(state.stack) - bool(state.string) == depth, source[at - 40 : at]


@given(st.text(alphabet="ab()[]{}\"'#\\\n ", max_size=60), st.integers(0, 60))
def test_reading_on_from_a_line_s_end_is_the_same_as_reading_at_once(text: str, cut: int) -> None:
    at = text.rfind("\n", 0, cut) + 1
    first = scan(text[:at], "python").state
    if not text[:at].endswith("\\\n"):
        assert scan(text[at:], "python", first).state == scan(text, "python").state


@given(st.text(max_size=200), st.sampled_from(["python", "javascript", "markdown", "no such language"]))
def test_any_text_can_be_scanned(text: str, language: str) -> None:
    scan(text, language, scan(text[: len(text) // 2], language).state)
    assert line_is_prefix(text, language)


def line_is_prefix(text: str, language: str) -> bool:
    """Removing a comment never changes what stands before it."""
    return text.startswith(without_comment(text, language))


def test_closings_of_what_was_open_before() -> None:
    found = scan('hello") + foo(1))', "python", LexerState((")", ")", '"'))).closings
    assert [(each.start, each.closer) for each in found] == [(5, '"'), (6, ")"), (16, ")")]


def test_brackets_the_text_opens_itself_are_no_closings() -> None:
    assert scan("f(a)[b]", "python", LexerState((")",))).closings == ()


@pytest.mark.parametrize(
    ("line", "code"),
    [("x = '#'  # hash", "x = '#'"), ("if x:  # why", "if x:"), ("# all", ""), ("x", "x"), ("def f():", "def f():")],
)
def test_a_comment_is_told_from_code(line: str, code: str) -> None:
    assert without_comment(line, "python") == code
