"""Work under way: searches that share the rows of one model, and take their steps together. Knows no threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.batched.reading import Read
from peft_evaluation.batched.rows import Rows
from peft_evaluation.batched.searches import Moves, Search

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """One prompt and what is to be made of it. Its functions are called from the thread that computes."""

    tokens: Sequence[int]
    search: Search
    adapter: AdapterLease | None
    begun: Callable[[], None] = lambda: None
    """It no longer waits."""
    read: Callable[[int], None] = lambda _evaluated: None
    """Its prompt is read, and so many of its tokens had to be."""
    done: Callable[[Exception | None], None]
    """It is over; with what was raised, if anything was. Called once."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def weights(self) -> tuple[str, float] | None:
        """What tells adapters apart; None for the base alone."""
        return (self.adapter.digest, self.adapter.scale) if self.adapter and self.adapter.scale else None

    @property
    def length(self) -> int:
        """Positions of its longest row at the end."""
        return len(self.tokens) + self.search.max_tokens


@dataclass(frozen=True)
class _Share:
    """How many of the rows are those of one piece of work; they follow those of the one before it."""

    work: Work
    rows: int


class UnderWay:
    """All that is being worked on, under one adapter."""

    def __init__(self) -> None:
        self._shares: list[_Share] = []
        self._rows: Rows | None = None
        self._next: list[int] = []
        """The token with which each row goes on."""

    @property
    def works(self) -> list[Work]:
        """In the order in which they were begun."""
        return [share.work for share in self._shares]

    def begin(self, works: Sequence[Work], read: Read) -> None:
        """Go on with these as well; ``read`` has a row for each."""
        shares, tokens = _advance([_Share(work, 1) for work in works], read.rows, read.logits)
        if not shares:
            return
        if self._rows is None:
            self._rows = read.rows
        else:
            self._rows.join(read.rows)
        self._shares += shares
        self._next += tokens

    def step(self, model: PreTrainedModel) -> None:
        """One token more for every row. Raises ValueError when there is none."""
        if self._rows is None:
            raise ValueError("there is nothing to do")
        logits = self._rows.step(model, self._next)
        self._shares, self._next = _advance(self._shares, self._rows, logits)
        if not self._shares:
            self._rows = None

    def abandon(self, error: Exception) -> None:
        """Nothing of it goes on, because of ``error``."""
        works, self._shares, self._rows, self._next = self.works, [], None, []
        for work in works:
            work.done(error)


def _advance(shares: Sequence[_Share], rows: Rows, logits: Tensor) -> tuple[list[_Share], list[int]]:
    """Ask every search how it goes on, and keep only the rows that do: who has them, and the next token of each."""
    left: list[_Share] = []
    kept: list[int] = []
    tokens: list[int] = []
    first = 0
    for share in shares:
        work, last = share.work, first + share.rows
        failure: Exception | None = None
        moves: Moves = ()
        try:
            moves = () if work.cancelled.is_set() else work.search.advance(logits[first:last])
        except Exception as error:
            # A fault of one search is not one of those beside it.
            failure = error
        kept += [first + row for row, _ in moves]
        tokens += [token for _, token in moves]
        first = last
        if moves:
            left.append(_Share(work, len(moves)))
        else:
            work.done(failure)
    if kept:
        rows.take(kept)
    return left, tokens
