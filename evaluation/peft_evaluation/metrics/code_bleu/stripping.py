"""Code without its comments and docstrings, before it is parsed."""

from __future__ import annotations

import io
import tokenize


def strip(code: str) -> str:
    """The same lines without comments, docstrings and empty lines; ``code`` itself where it has no tokens of Python.

    A text that begins a line at its very left is taken for a docstring as well.
    """
    try:
        kept = "".join(_kept(code))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return code
    return "\n".join(line for line in kept.split("\n") if line.strip())


def _kept(code: str) -> list[str]:
    pieces: list[str] = []
    before, last_line, last_column = tokenize.INDENT, -1, 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        line, column = token.start
        if line > last_line:
            last_column = 0
        pieces.append(" " * (column - last_column))
        docstring = token.type == tokenize.STRING and (before in (tokenize.INDENT, tokenize.NEWLINE) or column == 0)
        if token.type != tokenize.COMMENT and not docstring:
            pieces.append(token.string)
        before = token.type
        last_line, last_column = token.end
    return pieces
