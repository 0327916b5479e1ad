"""The thread that owns the model: searches that share its rows, and what is begun next.

A ``Search`` says from the logits of its rows which row goes on with which token, and computes nothing else, so that
many searches share a step. Jobs under one adapter at one scale run together; another adapter is activated when the
last of them is done.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from peft_daemon.adapters.manifest import AdapterLease
from peft_evaluation.batch_engine.kv_states import KvRows, PrefilledPrompts, PromptReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.base_model import LoadedBase

MAX_WAITING_STEPS = 8
"""Steps that work waits at most for more to be read with it: reading little takes as long as reading much."""
STOPPED = "the engine was stopped"
ENOUGH_SHARE = 4
"""What fills a fourth of the rows is read without waiting."""


@dataclass(frozen=True)
class BatchLimits:
    """How much is done at once."""

    rows: int
    positions: int
    """Of all rows together, each counted as long as the longest may become: they have to fit into memory."""
    reading: int
    """Tokens of prompts that are read in one pass."""


class BatchWorker:
    """Works until it is stopped."""

    def __init__(self, base: LoadedBase, shelf: AdapterCache, limits: BatchLimits) -> None:
        self._model, self._shelf, self._limits = base.model, shelf, limits
        self._reader = PromptReader(base.model, tokens_at_once=limits.reading, check=self._go_on_reading)
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[SearchJob | None] = queue.SimpleQueue()
        self._waiting: deque[SearchJob] = deque()
        self._waited = 0
        self._under_way = RunningBatch()
        self._thread = threading.Thread(target=self._run, name="batched answers", daemon=True)
        self._thread.start()

    def put(self, work: SearchJob) -> None:
        """Take it on. For any thread."""
        self._inbox.put(work)

    def stop(self) -> None:
        """End after the step or the pass under way; what is not done ends with an InterruptedError."""
        self._stopping.set()
        self._inbox.put(None)
        self._thread.join()

    def _go_on_reading(self) -> None:
        if self._stopping.is_set():
            raise InterruptedError(STOPPED)

    def _run(self) -> None:
        while self._take_in():
            try:
                self._go_on()
            except Exception as error:
                # The states may be half written: nothing that needs them can go on.
                self._under_way.abandon(error)
        stopped = InterruptedError(STOPPED)
        self._under_way.abandon(stopped)
        for work in self._waiting:
            work.done(stopped)

    def _take_in(self) -> bool:
        """All that has arrived; waits where there is nothing to do. Whether to go on."""
        while True:
            idle = not self._under_way.works and not self._waiting
            try:
                work = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if work is None:
                return False
            self._waiting.append(work)

    def _go_on(self) -> None:
        """Begin what there is room for, if it is enough to be worth a pass; else one step of all that is under way."""
        self._forget_cancelled()
        fitting = self._fitting()
        self._waited = self._waited + 1 if fitting else 0
        enough = sum(work.search.width for work in fitting) * ENOUGH_SHARE >= self._limits.rows
        if fitting and (enough or self._waited > MAX_WAITING_STEPS or not self._under_way.works):
            self._waited = 0
            for work in fitting:
                self._waiting.popleft()
                work.begun()
            self._begin(fitting)
        elif self._under_way.works:
            self._under_way.step(self._model)

    def _begin(self, works: list[SearchJob]) -> None:
        try:
            adapter = self._shelf.activate(works[0].adapter)
            self._reader.put_on(adapter, works[0].weights)
            read = self._reader.read([work.tokens for work in works])
        except Exception as error:
            # What is under way has states of its own, and goes on.
            for work in works:
                work.done(error)
            return
        for work, evaluated in zip(works, read.evaluated, strict=True):
            work.read(evaluated)
        self._under_way.begin(works, read)

    def _fitting(self) -> list[SearchJob]:
        """The first of what waits, as far as there is room beside what is under way; one always fits alone."""
        together = self._under_way.works
        found: list[SearchJob] = []
        for work in self._waiting:
            together = [*together, work]
            rows = sum(each.search.width for each in together)
            longest = max(each.length for each in together)
            fits = rows <= self._limits.rows and rows * longest <= self._limits.positions
            if together[0].weights != work.weights or not (fits or len(together) == 1):
                break
            found.append(work)
        return found

    def _forget_cancelled(self) -> None:
        wanted = deque(work for work in self._waiting if not work.cancelled.is_set())
        for work in self._waiting:
            if work.cancelled.is_set():
                work.done(None)
        self._waiting = wanted


RowMoves = Sequence[tuple[int, int]]
"""Which of its rows go on, each with which token: a row may be named several times, or not at all."""


class Search(Protocol):
    """See the module."""

    @property
    def width(self) -> int:
        """The most rows it ever has."""

    @property
    def max_tokens(self) -> int:
        """The most tokens a row grows by."""

    def advance(self, logits: Tensor) -> RowMoves:
        """What to do next, given the logits (float32) after each of its rows; nothing: it is over."""


class SingleSequence:
    """One answer. What a token means for it is for ``take`` to say: whether there is to be another."""

    width = 1

    def __init__(self, take: Callable[[Tensor], int | None], *, max_tokens: int) -> None:
        """``take`` is given the logits after the last token, and returns the next one, or None at the end."""
        self._take, self.max_tokens = take, max_tokens

    def advance(self, logits: Tensor) -> RowMoves:
        """See ``Search``."""
        token = self._take(logits[0])
        return () if token is None else ((0, token),)


class BeamSearch:
    """The likeliest answers, by log-probability divided by length; transformers' search with its default settings.

    An answer also ends where ``over`` says so of its tokens, the last of which is new.
    """

    def __init__(
        self, width: int, *, max_tokens: int, ends: frozenset[int], over: Callable[[Sequence[int]], bool]
    ) -> None:
        self.width, self.max_tokens = width, max_tokens
        self._ends, self._over = ends, over
        self._running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self.found: list[tuple[float, tuple[int, ...]]] = []
        """Score and tokens of the best answers so far, best first; the token that ended one is its last."""

    def advance(self, logits: Tensor) -> RowMoves:
        """See ``Search``."""
        length = len(self._running[0][1]) + 1
        running: list[tuple[float, tuple[int, ...], int]] = []
        for rank, (score, row, token) in enumerate(self._candidates(logits)):
            if rank >= self.width and len(running) == self.width:
                break
            tokens = (*self._running[row][1], token)
            if token in self._ends or length == self.max_tokens or self._over(tokens):
                # One beyond the beams is not a find, and does not take the place of one that goes on.
                if rank < self.width:
                    self.found.append((score / length, tokens))
            elif len(running) < self.width:
                running.append((score, tokens, row))
        self.found = sorted(self.found, key=lambda each: -each[0])[: self.width]
        self._running = [(score, tokens) for score, tokens, _ in running]
        if not running or (len(self.found) == self.width and running[0][0] / length <= self.found[-1][0]):
            return ()
        return [(row, tokens[-1]) for _, tokens, row in running]

    def _candidates(self, logits: Tensor) -> list[tuple[float, int, int]]:
        """Score, row and token of all that may be among the best, best first."""
        each = min(2 * self.width + len(self._ends), logits.shape[1])
        best = logits.log_softmax(-1).topk(each)
        so_far = torch.tensor([score for score, _ in self._running], device=logits.device)
        scores, order = (best.values + so_far[:, None]).flatten().sort(descending=True, stable=True)
        tokens = best.indices.flatten()[order]
        return list(zip(scores.tolist(), (order // each).tolist(), tokens.tolist(), strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchJob:
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
class _RowShare:
    """How many of the rows are those of one piece of work; they follow those of the one before it."""

    work: SearchJob
    rows: int


class RunningBatch:
    """All that is being worked on, under one adapter."""

    def __init__(self) -> None:
        self._shares: list[_RowShare] = []
        self._rows: KvRows | None = None
        self._next: list[int] = []
        """The token with which each row goes on."""

    @property
    def works(self) -> list[SearchJob]:
        """In the order in which they were begun."""
        return [share.work for share in self._shares]

    def begin(self, works: Sequence[SearchJob], read: PrefilledPrompts) -> None:
        """Go on with these as well; ``read`` has a row for each."""
        shares, tokens = _advance([_RowShare(work, 1) for work in works], read.rows, read.logits)
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


def _advance(shares: Sequence[_RowShare], rows: KvRows, logits: Tensor) -> tuple[list[_RowShare], list[int]]:
    """Ask every search how it goes on, and keep only the rows that do: who has them, and the next token of each."""
    left: list[_RowShare] = []
    kept: list[int] = []
    tokens: list[int] = []
    first = 0
    for share in shares:
        work, last = share.work, first + share.rows
        failure: Exception | None = None
        moves: RowMoves = ()
        try:
            moves = () if work.cancelled.is_set() else work.search.advance(logits[first:last])
        except Exception as error:
            # A fault of one search is not one of those beside it.
            failure = error
        kept += [first + row for row, _ in moves]
        tokens += [token for _, token in moves]
        first = last
        if moves:
            left.append(_RowShare(work, len(moves)))
        else:
            work.done(failure)
    if kept:
        rows.take(kept)
    return left, tokens
