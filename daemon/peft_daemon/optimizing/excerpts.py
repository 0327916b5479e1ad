"""Real code that every installation has: excerpts of Python's own library, the same ones for the same Python."""

from __future__ import annotations

import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from peft_core.errors import NotFound

BEFORE, LENGTH, AFTER = 500, 360, 200
"""Characters before the part that is asked about, of that part, and after it."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a file; what is asked about begins at ``start`` and ends at ``end``."""

    name: str
    text: str
    start: int
    end: int

    def word_starts(self, least_apart: int = 10) -> list[int]:
        """Positions between ``start`` and ``end`` where a word begins, ``least_apart`` characters or more apart.

        The space before a word counts to it, as most tokenizers make one token of both, also behind an indentation.
        """
        found: list[int] = []
        for at in range(self.start, self.end):
            if self.text[at].isalnum() and not self.text[at - 1].isalnum():
                place = at - 1 if self.text[at - 1] == " " else at
                if not found or place - found[-1] >= least_apart:
                    found.append(place)
        return found

    def cuts(self, most: int = 3) -> list[int]:
        """One position in each line, of ``most`` lines at the most: a word with which not all is written yet."""
        found: list[int] = []
        for at in self.word_starts(1):
            begin, end = self.text.rfind("\n", 0, at) + 1, self.text.find("\n", at)
            written, left = self.text[begin:at].strip(), self.text[at:end].strip()
            if written and len(left) >= 4 and not (found and begin <= found[-1]):
                found.append(at)
        return found[:most]


def excerpts(count: int, folder: Path | None = None, seed: int = 5) -> list[Excerpt]:
    """``count`` excerpts of different modules, by default of Python's library; plain ASCII, from a module's middle.

    Raises NotFound where there are not so many modules, as with a library that comes without sources.
    """
    folder = folder or Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    random.Random(seed).shuffle(files)  # noqa: S311  (a choice to repeat, no secret)
    found: list[Excerpt] = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        begin = text.rfind("\n", 0, len(text) // 2) + 1
        piece = text[begin : begin + BEFORE + LENGTH + AFTER]
        if len(piece) == BEFORE + LENGTH + AFTER and piece.isascii():
            found.append(Excerpt(file.name, piece, BEFORE, BEFORE + LENGTH))
        if len(found) == count:
            return found
    raise NotFound(
        f"{len(found)} of the {count} Python modules that are needed to judge a copy",
        why=f"{folder} has no more",
        fix="Use a Python that comes with the sources of its library",
    )
