"""Feedback summed up: how often suggestions are taken and stay, by adapter and language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from peft_core.api_types import BASE, Outcome
from peft_daemon.feedback.store import Row


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The suggestions of one adapter in one language; counts, and shares of 1."""

    adapter: str
    """Its name, ``base`` for none."""
    digest: str
    language: str
    offers: int
    accepted: float
    partly: float
    typed: float
    rejected: float
    still_there: float | None
    """Of the characters that were accepted, those still there when they were looked at again; null: none were."""
    characters_shown: int
    characters_accepted: int


@dataclass
class _Sums:
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    shown: int = 0
    accepted: int = 0
    stood: int = 0
    kept: int = 0

    def add(self, row: Row) -> None:
        record = row.record
        self.outcomes[record.outcome] += 1
        self.shown += record.shown
        self.accepted += record.accepted
        if record.outcome in (Outcome.ACCEPTED, Outcome.PARTLY) and record.kept is not None:
            self.stood += record.stood
            self.kept += min(record.kept, record.stood)


def summed_up(rows: Iterable[Row]) -> list[Line]:
    """One line for each adapter and language, the most used first."""
    found: dict[tuple[str, str, str], _Sums] = {}
    for row in rows:
        adapter = row.record.adapter
        key = (adapter.name if adapter else BASE, adapter.digest if adapter else "", row.record.language)
        found.setdefault(key, _Sums()).add(row)
    lines = [_line(*key, sums) for key, sums in found.items()]
    return sorted(lines, key=lambda line: (-line.offers, line.adapter, line.language))


def _line(adapter: str, digest: str, language: str, sums: _Sums) -> Line:
    offers = sum(sums.outcomes.values())
    return Line(
        adapter=adapter,
        digest=digest,
        language=language,
        offers=offers,
        **{outcome.value: count / offers for outcome, count in sums.outcomes.items()},
        still_there=sums.kept / sums.stood if sums.stood else None,
        characters_shown=sums.shown,
        characters_accepted=sums.accepted,
    )
