"""Cells around a cell are text in its language that leaves nothing open, and lines of IPython are no Python."""

from __future__ import annotations

import pytest

from peft_core.code.lexer import scan
from peft_core.code.notebook import (
    MAX_COMMENT_LINE_CHARS,
    MAX_COMMENT_LINES,
    as_context,
    cell_language,
    text_above,
    text_below,
    without_magics,
)
from peft_core.code.positions import split_lines


@pytest.mark.parametrize(
    ("first", "language"),
    [
        ("%%sql", "sql"),
        ("%%bigquery frame", "sql"),
        ("\n%%bash --out files", "shellscript"),
        ("%%script /usr/bin/perl", "perl"),
        ("%%javascript", "javascript"),
        ("%%html", "html"),
        ("%%R -i frame", "r"),
        ("%%svg", "xml"),
        ("%%markdown", "markdown"),
        ("%%writefile src/Makefile", "makefile"),
        ("%%writefile -a notes.txt", "plaintext"),
        ("%%writefile -a .env", "dotenv"),
        ("%%file id_rsa", "dotenv"),
        ("%%time", "python"),
        ("%%capture out", "python"),
        ("%%unheard_of", "python"),
        ("%time f()", "python"),
        ("x = 1", "python"),
        ("", "python"),
    ],
)
def test_the_first_line_of_a_python_cell_may_say_another_language(first: str, language: str) -> None:
    assert cell_language(split_lines(f"{first}\nselect 1"), "python") == language


def test_in_notebooks_of_other_languages_there_are_no_magics() -> None:
    lines = split_lines("%%sql\n!x\n%y")
    assert cell_language(lines, "julia") == "julia"
    assert without_magics(lines, "julia") == lines


def test_lines_of_ipython_are_comments_in_their_place_and_the_cursors_line_stays() -> None:
    text = (
        "%matplotlib inline\n"
        "!pip install \\\n"
        "    'a-package\n"
        "for name in names:\n"
        "    %time load(name\n"
        "files = !ls (\n"
        "frame.head?\n"
        "?len\n"
        "rest = (1\n"
        "  % 2)\r\n"
        "!last {"
    )
    lines = split_lines(text)
    assert "".join(without_magics(lines, "python", cursor_line=10)) == (
        "# %matplotlib inline\n"
        "# !pip install \\\n"
        "    # 'a-package\n"
        "for name in names:\n"
        "    # %time load(name\n"
        "# files = !ls (\n"
        "# frame.head?\n"
        "# ?len\n"
        "rest = (1\n"
        "  % 2)\r\n"
        "!last {"
    )


def test_the_magic_of_a_cell_is_a_comment_of_the_cells_language() -> None:
    assert list(without_magics(split_lines("%%sql\nselect 1"), "python")) == ["-- %%sql\n", "select 1"]
    assert list(without_magics(split_lines("%%html\n<p>"), "python")) == ["<!-- %%html -->\n", "<p>"]


def context(text: str, language: str = "python", reader: str = "python", *, is_code: bool = True) -> str:
    return as_context(split_lines(text), language, reader, is_code=is_code)


def test_a_cell_of_the_same_language_is_code_and_all_others_are_comments() -> None:
    assert context("import os\n") == "import os"
    assert context("# Load\n\nthe `data`", "markdown", is_code=False) == "# # Load\n#\n# the `data`"
    assert context("%%bash\nls") == "# %%bash\n# ls"
    assert context("%%bash\nls", reader="shellscript") == "# %%bash\nls"
    assert context("import os", reader="sql") == "-- import os"
    assert context("import os", reader="html") == "<!-- import os -->"
    assert context("import os", reader="json") == ""
    assert context("import os", reader="markdown") == "import os"
    assert context(" \n") == ""


@pytest.mark.parametrize("text", ["f(1,\n", 'x = """text\n', "s = [\n'a',\n# end"])
def test_a_cell_that_leaves_something_open_is_a_comment(text: str) -> None:
    assert scan(text, "python").state.stack
    shown = context(text)
    assert all(line.startswith("#") for line in shown.splitlines())
    assert not scan(shown + "\n\n", "python").state.stack


def test_a_cell_whose_text_goes_to_a_file_of_secrets_is_shown_to_no_other() -> None:
    assert context("%%writefile .env\nKEY=abc") == ""
    assert context("%%writefile .env\nKEY=abc", reader="markdown") == ""


def test_of_long_prose_the_end_is_shown_and_no_picture() -> None:
    prose = "\n".join([*(f"line {number}" for number in range(100)), "![](data:" + "a" * MAX_COMMENT_LINE_CHARS])
    shown = context(prose, "markdown", is_code=False).splitlines()
    assert len(shown) == MAX_COMMENT_LINES
    assert shown[-1] == "# line 99"


def test_cells_are_shown_whole_the_nearest_first_and_in_their_order() -> None:
    assert text_above(["c", "", "b", "a"], 100) == "a\n\nb\n\nc\n\n"
    assert text_below(["d", "", "e"], 100) == "\n\nd\n\ne"
    assert text_above(["c", "bbbb", "a"], 8) == "c\n\n"
    assert text_below(["cc"], 3) == ""
