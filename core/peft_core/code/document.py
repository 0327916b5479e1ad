"""A document around the cursor: views of its lines, and which strings, comments and brackets are open there.

In ``Document``, lines end with ``\\n`` whatever the file uses; ``restore`` gives a completion the file's own line
ending. Only ``\\n``, ``\\r\\n`` and ``\\r`` end a line, as in the language server protocol: a form feed or U+2028 does
not. Statements and blocks are not covered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from peft_core.code.languages import language_id
from peft_core.code.lexer import LexerState, scan
from peft_core.code.lexical_rules import rules_of

MAX_SCANNED_CHARACTERS = 200_000
"""Characters before the cursor, and after it, that are scanned for what is open."""
MAX_NEXT_LINES = 64
_CODE_IN_STRING = re.compile(r"(?:[$#]\{|\\\(|(?<!\{)\{)[^{}]*\Z")
"""The beginning of code within a string: ``{name``, ``${name``, ``#{name``, ``\\(name``."""


@dataclass(frozen=True)
class Document:
    """Text before and after the cursor, with ``\\n`` line ends; ``normalized`` builds it from any text."""

    prefix: str
    suffix: str = ""
    path: str | None = None
    language: str = "python"
    line_ending: str = "\n"
    """The line ending of the file itself."""

    @classmethod
    def normalized(
        cls, prefix: str, suffix: str = "", *, path: str | None = None, language: str = "python"
    ) -> Document:
        """Build from text with any line endings; the most frequent one becomes ``line_ending``.

        A cursor between ``\\r`` and ``\\n`` counts as before both. Everything up to the end of the cursor's line keeps
        its length, so a count of characters after the cursor on that line means the same in the file. ``language`` is
        any editor's name of it.
        """
        language = language_id(language)
        if "\r" not in prefix and "\r" not in suffix:
            return cls(prefix, suffix, path, language)
        if prefix.endswith("\r") and suffix.startswith("\n"):
            prefix, suffix = prefix[:-1], "\r" + suffix
        counts = {"\r\n": 0, "\n": 0, "\r": 0}
        for text in (prefix, suffix):
            counts["\r\n"] += (pairs := text.count("\r\n"))
            counts["\n"] += text.count("\n") - pairs
            counts["\r"] += text.count("\r") - pairs
        ending = max(counts, key=lambda key: counts[key])
        return cls(normalize_newlines(prefix), normalize_newlines(suffix), path, language, ending)

    def restore(self, text: str) -> str:
        """Return ``text`` with the line ending of the file."""
        return text if self.line_ending == "\n" else text.replace("\n", self.line_ending)

    @cached_property
    def line_start(self) -> int:
        """Offset in ``prefix`` of the start of the cursor's line."""
        return self.prefix.rfind("\n") + 1

    @cached_property
    def line_before(self) -> str:
        """The cursor's line up to the cursor."""
        return self.prefix[self.line_start :]

    @cached_property
    def line_after(self) -> str:
        """The cursor's line from the cursor on, without its line end."""
        return self.suffix.split("\n", 1)[0]

    @cached_property
    def indentation(self) -> str:
        """White space at the start of the cursor's line, as far as the cursor."""
        return leading_space(self.line_before)

    @cached_property
    def previous_line(self) -> str:
        """The nearest line above the cursor's that is not blank, or an empty string."""
        end = self.line_start
        while end > 0:
            start = self.prefix.rfind("\n", 0, end - 1) + 1
            line = self.prefix[start : end - 1]
            if line.strip():
                return line
            end = start
        return ""

    @cached_property
    def next_lines(self) -> tuple[str, ...]:
        """The first lines below the cursor's that are not blank, ``MAX_NEXT_LINES`` at most."""
        found: list[str] = []
        start = self.suffix.find("\n") + 1
        while start and len(found) < MAX_NEXT_LINES:
            end = self.suffix.find("\n", start)
            line = self.suffix[start:] if end < 0 else self.suffix[start:end]
            if line.strip():
                found.append(line)
            start = end + 1
        return tuple(found)

    @cached_property
    def lexer_state(self) -> LexerState:
        """The strings, comments and brackets that are open at the cursor."""
        prefix = self.prefix
        if len(prefix) > MAX_SCANNED_CHARACTERS:
            # The scan begins at the start of a line. In the worst case that lies inside a long string.
            prefix = prefix[prefix.find("\n", len(prefix) - MAX_SCANNED_CHARACTERS) + 1 :]
        return scan(prefix, self.language).state

    @cached_property
    def scope(self) -> str:
        """What the cursor stands in that is not code: ``comment`` or ``string``, else an empty text."""
        state = self.lexer_state
        if state.comment:
            return "comment"
        return "string" if state.string and not _CODE_IN_STRING.search(self.line_before) else ""

    @cached_property
    def closed_after(self) -> tuple[str, ...]:
        """The closing brackets and quotes, innermost first, of what is open at the cursor and closed after it.

        A text at the cursor that closes them too closes them twice.
        """
        if not self.lexer_state.stack:
            return ()
        after = scan(self.suffix[:MAX_SCANNED_CHARACTERS], self.language, self.lexer_state)
        if after.state.string and rules_of(self.language).spans_lines(after.state.string):
            # Nothing closes the string at the cursor, so all strings after it are taken for code and code for strings.
            return ()
        return tuple(each.closer for each in after.closings)


def normalize_newlines(text: str) -> str:
    """Return ``text`` with ``\\n`` in place of every ``\\r\\n`` and ``\\r``."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """Split a text into lines with their ends; only ``\\n`` ends one (``str.splitlines`` also cuts at U+2028)."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])


def leading_space(line: str) -> str:
    """Return the spaces and tabs that a line begins with."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def width(space: str) -> int:
    """Return the columns of leading white space; a tab reaches the next multiple of 8, as in Python's tokenizer."""
    return len(space.expandtabs(8))


def document_name(path: str | None, workspace: str | None) -> str:
    """Return a document's path below its workspace, else its name; empty if it has none."""
    if not path:
        return ""
    name = path.replace("\\", "/")
    folder = (workspace or "").replace("\\", "/").rstrip("/") + "/"
    return name[len(folder) :] if workspace and name.startswith(folder) else name.rsplit("/", 1)[-1]
