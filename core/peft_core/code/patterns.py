"""Patterns of file names as in a .gitignore, which a stranger may have written.

They are matched by re2, in a time that grows with the length of a path only: as Python's regular expressions, a pattern
with eight stars took minutes for one name.
"""

from __future__ import annotations

from collections.abc import Sequence

import pathspec

from peft_core.errors import InvalidInput

MAX_PATTERN_CHARS = 20_000
"""Characters of all patterns together."""


class FilePatterns:
    """Patterns that name files and folders."""

    def __init__(self, patterns: Sequence[str], where: str) -> None:
        """``where`` says what has them.

        Raises InvalidInput for patterns that are wrong, or more than ``MAX_PATTERN_CHARS`` together.
        """
        why = f"they have more than {MAX_PATTERN_CHARS:,} characters"
        if sum(map(len, patterns)) <= MAX_PATTERN_CHARS:
            try:
                self._spec = pathspec.GitIgnoreSpec.from_lines(patterns, backend="re2")
                return
            except Exception as error:  # re2 has an error of its own, which is no ValueError
                why = str(error)
        raise InvalidInput(f"bad ignore pattern in {where}", why=why, fix="Write patterns as in a .gitignore")

    def match(self, path: str) -> bool:
        """Return whether the patterns name this file; ``path`` is relative, with ``/`` in it."""
        return bool(self._spec.match_file(path.encode("utf-8", "replace").decode()))
