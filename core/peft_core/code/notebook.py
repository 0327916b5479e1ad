"""The cells of a notebook as a model reads them: the language of each, and the others as text around one.

Cells of the same language are code. All others, Markdown too, are comments, and so is a cell that leaves a bracket or a
string open, which would hide what follows it. In Python cells, the lines that only IPython understands (``%time``,
``!ls``) are comments as well; their number stays. Outputs are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from peft_core.code.document import leading_space
from peft_core.code.languages import language_id, language_of_document
from peft_core.code.lexer import LexerState, scan
from peft_core.code.lexical_rules import KNOWN_LANGUAGES, rules_of
from peft_core.code.positions import content
from peft_core.privacy.files import prose_language, secret_file

SEPARATOR = "\n\n"
"""Between two cells: a paragraph's end, where the model's block ends too."""
MAX_COMMENT_LINES = 16
"""Most lines of a cell that is shown as a comment: the last ones, next to what they speak of."""
MAX_COMMENT_LINE_CHARS = 200
"""Longer lines of such a cell, for example pictures, are left out."""
SECRETS = "dotenv"
"""Language id of a cell that is written to a file of secrets; it gets no suggestions and is not shown."""

_CELL_MAGIC = re.compile(r"%%(\w+)(.*)")
_LANGUAGES = {
    **dict.fromkeys(("bigquery", "sparksql", "sqlcmd"), "sql"),
    **dict.fromkeys(("sx", "system"), "shellscript"),
    "svg": "xml",
    "markdown": "markdown",
}
"""By a cell's magic, where that is not a name of the language itself."""
_LINE_MAGIC = re.compile(
    r"""[ \t]*(?:%{1,2}[A-Za-z_]|!|\?{1,2}[\w%]  # %time f(), !ls, ?name
    |[\w.,*\[\]'" \t]+=[ \t]*(?:!|%[A-Za-z_])  # files = !ls
    |[\w.%*]+\?{1,2}[ \t]*$)""",  # name?
    re.VERBOSE,
)


def cell_language(lines: Sequence[str], language: str) -> str:
    """Return the language of a cell with these lines, where the editor says ``language``.

    In a Python notebook the first line may say otherwise: ``%%sql``, ``%%writefile Makefile``.
    """
    found = _CELL_MAGIC.match(lines[_first_line(lines)]) if language == "python" and lines else None
    if found is None:
        return language
    magic, arguments = found[1].lower(), [each for each in found[2].split() if not each.startswith("-")]
    if magic in ("writefile", "file"):
        name = arguments[-1] if arguments else ""
        return SECRETS if secret_file(name) else language_of_document(PurePath(name).name) or "plaintext"
    if magic == "script" and arguments:
        magic = PurePath(arguments[0]).name.lower()
    usual = _LANGUAGES.get(magic) or language_id(magic)
    return usual if usual in KNOWN_LANGUAGES or prose_language(usual) else language


def without_magics(lines: Sequence[str], language: str, cursor_line: int | None = None) -> Sequence[str]:
    """Return the lines of a cell with IPython's own ones as comments, but for the cursor's line.

    ``language`` is what the editor says; in other languages than Python no line is changed.
    """
    if language != "python" or not any(_LINE_MAGIC.match(content(line)) for line in lines):
        return lines
    inner = cell_language(lines, language)
    magics = _magic_lines(lines) if inner == "python" else {_first_line(lines)}
    return [
        _commented(line, inner) if number in magics and number != cursor_line else line
        for number, line in enumerate(lines)
    ]


def as_context(lines: Sequence[str], language: str, reader: str, *, is_code: bool) -> str:
    """Return a cell as it is shown to the model above or below a cell in the language ``reader``.

    ``language`` is what the editor says. Empty if there is nothing to show.
    """
    own = cell_language(lines, language)
    if secret_file(None, own) is not None:
        return ""
    shown = "".join(without_magics(lines, language)).strip("\r\n")
    if prose_language(reader) is not None or not shown.strip():
        return shown.strip()
    if is_code and own == reader:
        state = scan(shown, reader).state
        if not state.stack and state.comment in ("", "\n"):
            return shown
    return _comment_block("".join(lines), reader)


def text_above(cells: Iterable[str], room: int) -> str:
    """Return cells, given from the nearest one up, as the text above a cell; whole cells, as many as there is room."""
    return "".join(f"{each}{SEPARATOR}" for each in reversed(_fitting(cells, room)))


def text_below(cells: Iterable[str], room: int) -> str:
    """Return cells, given from the nearest one down, as the text below a cell."""
    return "".join(f"{SEPARATOR}{each}" for each in _fitting(cells, room))


def _fitting(cells: Iterable[str], room: int) -> list[str]:
    found = []
    for each in cells:
        if not each:
            continue
        room -= len(each) + len(SEPARATOR)
        if room < 0:
            break
        found.append(each)
    return found


def _first_line(lines: Sequence[str]) -> int:
    """Return the number of the first line that is not blank; 0 if all are."""
    return next((number for number, line in enumerate(lines) if line.strip()), 0)


def _magic_lines(lines: Sequence[str]) -> set[int]:
    """Return the numbers of the lines that are IPython's: where a statement begins, and what a backslash continues."""
    found: set[int] = set()
    state, continued = LexerState(), ""
    for number, line in enumerate(lines):
        begins = not continued and not state.stack and not state.comment
        if continued == "magic" or (begins and _LINE_MAGIC.match(content(line))):
            found.add(number)
            continued = "magic" if content(line).endswith("\\") else ""
        else:
            state = scan(line, "python", state).state
            continued = "code" if content(line).endswith("\\") and not state.stack else ""
    return found


def _commented(line: str, language: str) -> str:
    """Return a line as a comment with the same line end; only that in a language without comments."""
    text = content(line)
    space, rules = leading_space(text), rules_of(language)
    opening, closing = (rules.line_comment, "") if rules.line_comment else rules.block_comment or ("", "")
    words = text[len(space) :].replace(closing, " ") if closing else text[len(space) :]
    return (f"{space}{opening} {words} {closing}".rstrip() if opening else "") + line[len(text) :]


def _comment_block(text: str, language: str) -> str:
    lines = [line for line in text.strip().splitlines() if len(line) <= MAX_COMMENT_LINE_CHARS]
    return "\n".join(_commented(line, language) for line in lines[-MAX_COMMENT_LINES:]).strip("\n")
