"""The order in which the files of a repository are learned, for a tuning run that has no time for all of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

HALF_LIFE_DAYS = 90
"""A file that was last changed so many days before the newest one counts half as recent."""
MAX_DEFINITIONS = 2
"""A name that more files define (``main``, ``run``) says nothing about which of them is used."""
_NAME = re.compile(r"[^\W\d]\w{2,}")
_DEFINED = re.compile(
    r"""^[ \t]*(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|unsafe
    |pub(?:\(\w+\))?)[ \t]+)*
    (?:def|class|function\*?|func(?:[ \t]*\([^)\n]*\))?|fn|struct|enum|trait|interface|type|record|object|sub)[ \t]+
    (?P<name>[^\W\d]\w{2,})""",
    re.MULTILINE | re.VERBOSE,
)
_DEFINED_IN_C = re.compile(r"^[A-Za-z_][\w \t*&:<>,]{0,200}[ \t*&](?P<name>[A-Za-z_]\w{2,})\([^;\n]*$", re.MULTILINE)


def importance(*, days: float, changes: int, most_changes: int, uses: int, most_uses: int) -> float:
    """Return how important it is to learn a file, from 0 to 3.

    Three things count the same, each from 0 to 1: how recently the file was changed (``days`` before the newest change
    of the repository, halved every ``HALF_LIFE_DAYS``); how many commits changed it; and how often other files use
    the names that it defines. The last two are logarithms, relative to the largest number in the repository.
    """
    recent: float = 0.5 ** (max(0.0, days) / HALF_LIFE_DAYS)
    changed = math.log1p(changes) / math.log1p(most_changes) if most_changes else 0.0
    used = math.log1p(uses) / math.log1p(most_uses) if most_uses else 0.0
    return recent + changed + used


def most_important_first(
    paths: Sequence[str], changes: Mapping[str, tuple[int, int]], uses: Mapping[str, int]
) -> list[str]:
    """Sort paths by ``importance``; ``changes`` has the number of commits and the time of the last, in seconds.

    Files of which neither is known count as never changed. Equal ones are in the order of their paths.
    """
    newest = max((last for _count, last in changes.values()), default=0)
    most_changes = max((count for count, _last in changes.values()), default=0)
    most_uses = max(uses.values(), default=0)

    def rank(path: str) -> tuple[float, str]:
        count, last = changes.get(path, (0, 0))
        score = importance(
            days=(newest - last) / 86_400,
            changes=count,
            most_changes=most_changes,
            uses=uses.get(path, 0),
            most_uses=most_uses,
        )
        return (-score, path)

    return sorted(paths, key=rank)


class NameUses:
    """Counts how often the names that a file defines are used by others; texts are added one after the other.

    Names are compared as words, without regard to scopes. That is cheap, and enough to put files in an order.
    """

    def __init__(self) -> None:
        self._files_with: Counter[str] = Counter()
        self._defined: dict[str, frozenset[str]] = {}

    def add(self, path: str, text: str, language: str) -> None:
        """Add a file."""
        self._files_with.update(set(_NAME.findall(text)))
        defined = {match["name"] for match in _DEFINED.finditer(text)}
        if language in {"c", "cpp"}:
            defined |= {match["name"] for match in _DEFINED_IN_C.finditer(text)}
        self._defined[path] = frozenset(defined)

    def counts(self) -> Mapping[str, int]:
        """Return, by path, the number of other files that use each of its names, added up."""
        definitions = Counter(name for names in self._defined.values() for name in names)
        return {
            path: sum(
                self._files_with[name] - definitions[name] for name in names if definitions[name] <= MAX_DEFINITIONS
            )
            for path, names in self._defined.items()
        }
