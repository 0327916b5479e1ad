"""Which strings, comments and brackets are open at a point of a text, in one pass from its start.

A parser needs complete code, which the code around a cursor seldom is. This scanner needs only the text before the
point. Python is scanned exactly, except for nested quotes in f-strings; other languages by their ``lexical_rules``, in
which code within a string (``${…}``) is a part of the string. Functions and blocks are in ``structure``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from peft_core.code.lexical_rules import LexicalRules, rules_of

BRACKETS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(BRACKETS.values())
_BEFORE_VALUE = re.compile(
    r"""(?:^|[(,=:\[!&|?{;+\-*%~^]|=>
    |(?<![\w$.])(?:return|typeof|case|in|of|do|else|void|delete|throw|new|instanceof|await|yield
    |if|elsif|unless|when|while|until|and|or|not|then|split|grep|map))\s*\Z""",
    re.VERBOSE,
)
"""What stands before a value; a ``/`` after anything else divides, or closes a tag."""
_MAX_BEFORE_VALUE = 64
"""Characters before a ``/`` that are looked at."""


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
    return _find_string_end(text, rules, begin, opened) if begin.string else 0


def _find_string_end(text: str, rules: LexicalRules, begin: LexerState, opened: _Open) -> int | None:
    quote = begin.string
    if quote not in rules.quotes and quote not in rules.long_quotes:
        found = _delimited_end(quote, text, 0, resumed=True)
    else:
        inside = _string_rest(quote, rules).match(text)
        end = inside.end() if inside else 0
        found = (end, end + len(quote)) if text.startswith(quote, end) else None
        if found is None and end < len(text):
            # A newline in a string that may not span lines: its quote was forgotten, so the string ends with the line.
            opened.forget(len(begin.stack) - 1)
            return end
    if found is None:
        return None
    opened.close(quote, *found)
    return found[1]


def _unfinished(comment: str, rules: LexicalRules) -> str:
    """Return what would end a comment at the end of a text; empty if it has ended."""
    if rules.block_comment is None or not comment.startswith(rules.block_comment[0]):
        return "\n"
    opening, closing = rules.block_comment
    return "" if comment.endswith(closing) and len(comment) >= len(opening) + len(closing) else closing


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
    pattern = _pattern(rules)
    heredoc, line_end = "", len(text)
    while True:
        match = pattern.search(text, position)
        start = match.start() if match else len(text)
        if heredoc and start >= line_end:
            # The line that announced the text is over: all up to its end word is a string.
            found = _delimited_end(heredoc, text, line_end)
            if found is None:
                yield "unclosed", line_end, len(text), heredoc
                return
            position, heredoc = found[1], ""
            continue
        if match is None:
            return
        kind, end = match.lastgroup or "", match.end()
        position = end
        if kind == "regex":
            is_value = _BEFORE_VALUE.search(text, max(0, start - _MAX_BEFORE_VALUE), start)
            position = end if is_value else start + 1
        elif kind == "heredoc":
            found_at = text.find("\n", end)
            if not heredoc and found_at >= 0:
                heredoc, line_end = "\n" + _group(rules.heredoc, text, start), found_at
        elif kind.startswith("delimited"):
            string = rules.delimited[int(kind.removeprefix("delimited"))]
            closer = string.closing.format(_group(string.opening, text, start))
            found = _delimited_end(closer, text, end)
            if found is None:
                yield "unclosed", start, len(text), closer
                return
            position = found[1]
        elif kind == "string":
            if end == len(text) and (quote := _unclosed_quote(text, start, rules)):
                yield "unclosed", start, end, quote
        elif kind != "literal":
            yield kind, start, end, match[0]


def _unclosed_quote(text: str, start: int, rules: LexicalRules) -> str:
    """Return the quote of the last string of a text if it is still open there, else an empty text."""
    quote = next(each for each in (*rules.long_quotes, *rules.quotes) if text.startswith(each, start))
    inside = _string_rest(quote, rules).match(text, start + len(quote))
    return quote if inside and inside.end() == len(text) else ""


def _group(pattern: str, text: str, start: int) -> str:
    match = re.compile(pattern).match(text, start)
    return match[1] if match and match.lastindex else ""


def _delimited_end(closer: str, text: str, start: int, *, resumed: bool = False) -> tuple[int, int] | None:
    """Return where a string with an end of its own is closed; None if nowhere. ``resumed``: a line may begin at 0."""
    if not closer.startswith("\n"):
        found = text.find(closer, start)
        return None if found < 0 else (found, found + len(closer))
    begin = r"(?:\A|\n)" if resumed else r"\n"
    match = re.compile(rf"{begin}[ \t]*{re.escape(closer[1:])}(?!\w)").search(text, start)
    return match.span() if match else None


@cache
def _pattern(rules: LexicalRules) -> re.Pattern[str]:
    parts: list[str] = []
    comments: list[str] = []
    if rules.block_comment:
        opening, closing = map(re.escape, rules.block_comment)
        comments.append(rf"{opening}(?:(?!{closing}).)*+(?:{closing}|\Z)")
    if rules.line_comment:
        comments.append(rf"(?:{rules.comment_pattern or re.escape(rules.line_comment)})[^\n]*+")
    if comments:
        parts.append(f"(?P<comment>{'|'.join(comments)})")
    parts += [f"(?P<delimited{number}>{each.opening})" for number, each in enumerate(rules.delimited)]
    if rules.heredoc:
        parts.append(f"(?P<heredoc>{rules.heredoc})")
    if rules.literals:
        parts.append(f"(?P<literal>{'|'.join(rules.literals)})")
    strings: list[str] = []
    for quote in (*rules.long_quotes, *rules.quotes):
        mark, rest = re.escape(quote), _string_rest(quote, rules).pattern
        # A string that may not span lines ends with its line if its quote was forgotten.
        strings.append(rf"{mark}{rest}(?:{mark}|\Z|(?=\n))")
    if strings:
        parts.append(f"(?P<string>{'|'.join(strings)})")
    if rules.regex:
        parts.append(r"(?P<regex>/(?![*/])(?:[^/\\\[\n]|\\[^\n]|\[(?:[^\]\\\n]|\\[^\n])*\])++/)")
    if rules.statements:
        parts.append(rf"(?P<statement>(?:\A|(?<=\n))[ \t]*{rules.statements})")
    parts.append(r"(?P<bracket>[()\[\]{}])")
    return re.compile("|".join(parts), re.DOTALL)


@cache
def _string_rest(quote: str, rules: LexicalRules) -> re.Pattern[str]:
    """Return a pattern for the content of a string after its opening quote."""
    long = rules.spans_lines(quote)
    if quote in rules.raw:
        other = rf"(?!{re.escape(quote)})" + ("." if long else r"[^\n]")
        return re.compile(rf"(?:{other})*+", re.DOTALL)
    escape = re.escape(rules.escape)
    other = rf"(?!{re.escape(quote)})" + (rf"[^{escape}]" if long else rf"[^{escape}\n]")
    return re.compile(rf"(?:{other}|{escape}.|{escape}\Z)*+", re.DOTALL)
