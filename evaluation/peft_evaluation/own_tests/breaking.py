"""A hole filled so that whoever reaches it notices, which tells whether tests reach it. For Python only.

The broken file still parses: otherwise every test that imports it would fail, whether it reaches the hole or not.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator

_CLOSES = {")": "(", "]": "[", "}": "{"}
_NAME = "broken_here"


def broken(before: str, middle: str, after: str) -> str | None:
    """What to put in place of ``middle``; None where nothing but ``middle`` parses.

    In this order: a statement that raises, an expression that does, a name that does not exist, ``middle`` with its
    first word replaced that is no keyword, nothing.
    """
    for candidate in _candidates(middle):
        if candidate != middle and _parses(before + candidate + after):
            return candidate
    return None


def _candidates(middle: str) -> Iterator[str]:
    # Not an Exception, which code around the hole may well expect.
    yield "raise BaseException"
    tail = _tail(middle)
    for expression in ("(1 // 0)", _NAME):
        yield expression + tail
    for word in re.finditer(r"\w+", middle):
        if not keyword.iskeyword(word[0]):
            yield middle[: word.start()] + _NAME + middle[word.end() :]
            break
    yield ""


def _tail(middle: str) -> str:
    """What ``middle`` closes that it did not open, and the comma or colon at its end. Strings are not looked into."""
    opened: list[str] = []
    tail = ""
    for character in middle:
        if character in _CLOSES.values():
            opened.append(character)
        elif character in _CLOSES:
            if opened and opened[-1] == _CLOSES[character]:
                opened.pop()
            else:
                tail += character
    return tail + (middle[-1] if middle and middle[-1] in ":," else "")


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
