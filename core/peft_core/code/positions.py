"""Conversion between columns of an editor and offsets of a Python string, one line at a time.

The protocol counts columns in UTF-16 code units unless client and server agree on UTF-8 or UTF-32; Python counts code
points. Lines end at ``\\n``, ``\\r\\n`` or a lone ``\\r`` and nowhere else (``str.splitlines`` also cuts at form feeds
and U+2028). Source: LSP 3.17, "Text Documents" and "Position". Uses the standard library only: ``initialize`` needs it.
"""

from __future__ import annotations

import re
from enum import StrEnum

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class Encoding(StrEnum):
    """What one column is; the values are the protocol's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


def negotiate(offered: object) -> Encoding:
    """Return the first encoding of the client's ``general.positionEncodings`` that is known here, else UTF-16."""
    if isinstance(offered, list | tuple):
        for name in offered:
            if name in tuple(Encoding):
                return Encoding(name)
    return Encoding.UTF16


def split_lines(text: str) -> list[str]:
    """Split into lines with their ends; the last has none, and is empty if the text is empty or ends a line.

    So ``"".join(split_lines(text)) == text`` and the number of lines is one more than the number of line ends.
    """
    if "\r" not in text:
        # One pass: a document of many megabytes is not held twice meanwhile.
        lines, start = [], 0
        while end := text.find("\n", start) + 1:
            lines.append(text[start:end])
            start = end
        return [*lines, text[start:]]
    lines = _LINE.findall(text)
    if not lines or lines[-1][-1] in "\r\n":
        lines.append("")
    return lines


def content(line: str) -> str:
    """Return the line without its end."""
    if line.endswith("\r\n"):
        return line[:-2]
    return line[:-1] if line[-1:] in ("\r", "\n") else line


def to_offset(line: str, column: int, encoding: Encoding) -> int:
    """Return the code points before ``column``; past the end is the end, inside a character is its start.

    ``line`` is given without its end.
    """
    if column <= 0:
        return 0
    if encoding is Encoding.UTF32 or line.isascii():
        return min(column, len(line))
    # Every character is at least one unit wide, so the first `column` characters are all that can matter.
    if encoding is Encoding.UTF8:
        data = line[:column].encode("utf-8", "surrogatepass")
        end = min(column, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        return len(data[:end].decode("utf-8", "surrogatepass"))
    data = line[:column].encode("utf-16-le", "surrogatepass")
    end = min(2 * column, len(data))
    if end < len(data) and 0xDC <= data[end + 1] <= 0xDF and 0xD8 <= data[end - 1] <= 0xDB:
        end -= 2
    return len(data[:end].decode("utf-16-le", "surrogatepass"))


def to_column(line: str, offset: int, encoding: Encoding) -> int:
    """Return the column of the character at ``offset`` code points; past the end is the end."""
    head = line[: max(offset, 0)]
    if encoding is Encoding.UTF32 or head.isascii():
        return len(head)
    if encoding is Encoding.UTF8:
        return len(head.encode("utf-8", "surrogatepass"))
    return len(head.encode("utf-16-le", "surrogatepass")) // 2
