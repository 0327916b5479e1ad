"""A document's lines around the cursor, as the re-created policies cut them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Around:
    """The lines of a document and the cursor among them."""

    lines: tuple[str, ...]
    """Without their ends."""
    line: int
    column: int

    @classmethod
    def of(cls, text: str, cursor: int) -> Around:
        """From a text and an offset in it."""
        begin = text.rfind("\n", 0, cursor) + 1
        return cls(tuple(text.split("\n")), text.count("\n", 0, cursor), cursor - begin)

    @property
    def before(self) -> str:
        """The cursor's line up to it."""
        return self.lines[self.line][: self.column]

    @property
    def behind(self) -> str:
        """The cursor's line from it on."""
        return self.lines[self.line][self.column :]

    def above(self, count: int) -> tuple[str, ...]:
        """So many lines above the cursor's, or what there is."""
        return self.lines[max(0, self.line - count) : self.line]

    def below(self, count: int) -> tuple[str, ...]:
        """So many lines below the cursor's, or what there is."""
        return self.lines[self.line + 1 : self.line + 1 + count]
