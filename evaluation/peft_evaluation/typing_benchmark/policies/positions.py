"""Offsets in a text, and the protocol's positions: line and UTF-16 column."""

from __future__ import annotations

from typing import Any

Position = dict[str, int]


def position(text: str, offset: int) -> Position:
    """The position of an offset in characters."""
    begin = text.rfind("\n", 0, offset) + 1
    return {"line": text.count("\n", 0, offset), "character": len(text[begin:offset].encode("utf-16-le")) // 2}


def offset(text: str, place: Any) -> int:
    """The offset of a position; one outside of the text means the nearest place in it."""
    begin = 0
    for _ in range(place["line"]):
        end = text.find("\n", begin)
        if end < 0:
            return len(text)
        begin = end + 1
    end = text.find("\n", begin)
    line = text[begin:] if end < 0 else text[begin:end]
    units = line.encode("utf-16-le")[: 2 * place["character"]]
    return begin + len(units.decode("utf-16-le", errors="ignore"))


def span(text: str, start: int, end: int) -> dict[str, Position]:
    """A range of the protocol."""
    return {"start": position(text, start), "end": position(text, end)}
