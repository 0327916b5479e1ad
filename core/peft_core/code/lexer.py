"""Which strings, comments and brackets are open at a point of a text, in one pass from its start.

A parser needs complete code, which the code around a cursor seldom is. This scanner needs only the text before the
point. Python is scanned exactly, except for nested quotes in f-strings; other languages by their comment marks and
quotes; unknown ones by brackets alone. Functions and blocks are in ``structure``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

BRACKETS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(BRACKETS.values())


@dataclass(frozen=True)
class LexicalRules:
    """The lexical rules of a language: comment marks and string delimiters."""

    line_comment: str = ""
    block_comment: tuple[str, str] | None = None
    quotes: tuple[str, ...] = ()
    """Delimiters of strings within one line."""
    long_quotes: tuple[str, ...] = ()
    """Delimiters of strings that may span lines."""
    statements: str = ""
    """A pattern of keywords that begin a line only outside brackets. After one, no bracket counts as open."""


_C = LexicalRules("//", ("/*", "*/"), ('"', "'"))
_SCRIPT = LexicalRules("//", ("/*", "*/"), ('"', "'"), ("`",))
_HASH = LexicalRules("#", None, ('"', "'"))
_PYTHON = LexicalRules(
    "#",
    None,
    ('"', "'"),
    ('"""', "'''"),
    r"(?:async[ \t]+def|def|class|return|import|raise|while|with|try|del|global|pass|break|continue|assert)\b",
)
_LANGUAGES = {
    "python": _PYTHON,
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact", "go"), _SCRIPT),
    **dict.fromkeys(("c", "cpp", "csharp", "java", "kotlin", "swift", "scala", "dart", "php"), _C),
    "rust": LexicalRules("//", ("/*", "*/"), ('"',)),
    **dict.fromkeys(("ruby", "shellscript", "perl", "r", "yaml", "toml"), _HASH),
}


def rules_of(language: str) -> LexicalRules:
    """Return the rules for a language (a language server protocol id); brackets only for an unknown one."""
    return _LANGUAGES.get(language, LexicalRules())


@dataclass(frozen=True)
class LexerState:
    """Open brackets and strings: ``stack`` holds the closing bracket or quote of each, innermost last."""

    stack: tuple[str, ...] = ()
    comment: str = ""
    """What ends the open comment (a newline or ``*/``); empty if none is open."""

    @property
    def string(self) -> str:
        """The closing quote of the string that is open, or empty."""
        return self.stack[-1] if self.stack and self.stack[-1] not in CLOSERS else ""

    @property
    def code(self) -> bool:
        """True outside strings and comments."""
        return not self.comment and not self.string


@dataclass(frozen=True)
class Closing:
    """A place in a text where a bracket or string closes that was open before the text began."""

    start: int
    end: int
    closer: str


@dataclass(frozen=True)
class Scan:
    """The result of a scan: the state at the end, and where what was open at the start was closed, in order."""

    state: LexerState
    closings: tuple[Closing, ...]


def scan(text: str, language: str, state: LexerState | None = None) -> Scan:
    """Scan ``text``, which begins in ``state`` (default: the start of a file)."""
    rules, begin = rules_of(language), state or LexerState()
    opened = _Open(begin)
    position = _find_code(text, rules, begin, opened)
    if position is None:
        return Scan(begin, ())
    comment = ""
    for kind, start, end, token in _tokens(text, position, rules):
        if kind == "comment":
            comment = _unfinished(token, rules) if end == len(text) else ""
        elif kind == "unclosed":
            opened.stack.append(token)
        elif kind == "statement":
            opened.forget()
        elif token in BRACKETS:
            opened.stack.append(BRACKETS[token])
        else:
            opened.close(token, start, end)
    return Scan(LexerState(tuple(opened.stack), comment), tuple(opened.closings))


class _Open:
    """The stack of a scan, which also records where brackets and strings close that were open at its start."""

    def __init__(self, begin: LexerState) -> None:
        self.stack = list(begin.stack)
        self.closings: list[Closing] = []
        self._base = len(self.stack)

    def close(self, closer: str, start: int, end: int) -> None:
        """Close the innermost ``closer`` and all that is open inside it; does nothing if there is none."""
        if closer not in self.stack:
            return
        index = len(self.stack) - 1 - self.stack[::-1].index(closer)
        for each in reversed(self.stack[index : self._base]):
            self.closings.append(Closing(start, end, each))
        del self.stack[index:]
        self._base = min(self._base, index)

    def forget(self, index: int = 0) -> None:
        """Remove from ``index`` on, as left open by mistake."""
        del self.stack[index:]
        self._base = min(self._base, index)


def _find_code(text: str, rules: LexicalRules, begin: LexerState, opened: _Open) -> int | None:
    """Return where code begins in a text that begins inside a comment or string; None if nowhere."""
    if begin.comment:
        found = text.find(begin.comment)
        if found < 0:
            return None
        return found if begin.comment == "\n" else found + len(begin.comment)
    quote = begin.string
    if not quote:
        return 0
    inside = _string_rest(quote, quote in rules.long_quotes).match(text)
    end = inside.end() if inside else 0
    if text.startswith(quote, end):
        opened.close(quote, end, end + len(quote))
        return end + len(quote)
    if end >= len(text):
        return None
    # A newline in a string that may not span lines: its quote was forgotten, so the string ends with the line.
    opened.forget(len(begin.stack) - 1)
    return end


def _unfinished(comment: str, rules: LexicalRules) -> str:
    """Return what would end a comment at the end of a text; empty if it has ended."""
    if rules.line_comment and comment.startswith(rules.line_comment):
        return "\n"
    closing = rules.block_comment[1] if rules.block_comment else ""
    return "" if comment.endswith(closing) else closing


def without_comment(line: str, language: str, state: LexerState | None = None) -> str:
    """Return a line of code without the comment and white space at its end; ``state`` is that at its start."""
    rules, position = rules_of(language), 0
    if state and not state.code:
        # Find where the code begins by letting ``scan`` close what is open.
        closing = scan(line, language, LexerState((state.string,), state.comment)).closings
        if not closing:
            return "" if state.comment else line.rstrip()
        position = closing[0].end
    for kind, start, _end, _token in _tokens(line, position, rules):
        if kind == "comment":
            return line[:start].rstrip()
    return line.rstrip()


def bracket_balance(line: str, language: str) -> int:
    """Return how many more brackets a line of code opens than it closes."""
    brackets = [token for kind, _start, _end, token in _tokens(line, 0, rules_of(language)) if kind == "bracket"]
    return sum(1 if bracket in BRACKETS else -1 for bracket in brackets)


def _tokens(text: str, position: int, rules: LexicalRules) -> Iterator[tuple[str, int, int, str]]:
    """Yield (kind, start, end, text) of the tokens that matter; for ``unclosed``, text is the missing quote."""
    for match in _pattern(rules).finditer(text, position):
        kind, start, end = match.lastgroup or "", match.start(), match.end()
        if kind != "string":
            yield kind, start, end, match[0]
        elif end == len(text):
            quote = next(each for each in (*rules.long_quotes, *rules.quotes) if text.startswith(each, start))
            inside = _string_rest(quote, quote in rules.long_quotes).match(text, start + len(quote))
            if inside and inside.end() == end:
                yield "unclosed", start, end, quote


@cache
def _pattern(rules: LexicalRules) -> re.Pattern[str]:
    parts: list[str] = []
    comments: list[str] = []
    if rules.line_comment:
        comments.append(re.escape(rules.line_comment) + r"[^\n]*+")
    if rules.block_comment:
        opening, closing = map(re.escape, rules.block_comment)
        comments.append(rf"{opening}(?:(?!{closing}).)*+(?:{closing}|\Z)")
    if comments:
        parts.append(f"(?P<comment>{'|'.join(comments)})")
    strings: list[str] = []
    for quote in (*rules.long_quotes, *rules.quotes):
        mark, rest = re.escape(quote), _string_rest(quote, quote in rules.long_quotes).pattern
        # A string that may not span lines ends with its line if its quote was forgotten.
        strings.append(rf"{mark}{rest}(?:{mark}|\Z|(?=\n))")
    if strings:
        parts.append(f"(?P<string>{'|'.join(strings)})")
    if rules.statements:
        parts.append(rf"(?P<statement>(?:\A|(?<=\n))[ \t]*{rules.statements})")
    parts.append(r"(?P<bracket>[()\[\]{}])")
    return re.compile("|".join(parts), re.DOTALL)


@cache
def _string_rest(quote: str, long: bool) -> re.Pattern[str]:
    """Return a pattern for the content of a string after its opening quote."""
    other = rf"(?!{re.escape(quote)})" + (r"[^\\]" if long else r"[^\\\n]")
    return re.compile(rf"(?:{other}|\\.|\\\Z)*+", re.DOTALL)
