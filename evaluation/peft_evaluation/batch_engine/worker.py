"""The thread that runs the model: it schedules jobs, and all jobs in progress share each step of the model.

A ``Search`` decides from the logits of its rows which rows continue with which token, and computes nothing else. Only
jobs with the same adapter at the same scale run together; another adapter is activated when they are all done.
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
"""Jobs wait at most this many steps for other jobs: evaluating one prompt takes about as long as evaluating several."""
STOPPED = "the engine was stopped"
START_AT_SHARE = 1 / 4
"""Waiting jobs start at once if they fill this share of the rows."""


@dataclass(frozen=True)
class BatchLimits:
    """How much is done at once."""

    rows: int
    """Sequences that are generated at once."""
    positions: int
    """Positions in memory: the number of rows times the greatest length that one may reach."""
    reading: int
    """Prompt tokens that are evaluated in one pass."""


class BatchWorker:
    """Runs jobs in a thread of its own until it is stopped."""

    def __init__(self, base: LoadedBase, adapter_cache: AdapterCache, limits: BatchLimits) -> None:
        self._model, self._adapter_cache, self._limits = base.model, adapter_cache, limits
        self._reader = PromptReader(base.model, tokens_at_once=limits.reading, check=self._require_running)
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[SearchJob | None] = queue.SimpleQueue()
        self._waiting: deque[SearchJob] = deque()
        self._waited = 0
        self._under_way = RunningBatch()
        self._thread = threading.Thread(target=self._run, name="batched answers", daemon=True)
        self._thread.start()

    def put(self, job: SearchJob) -> None:
        """Add a job; may be called from any thread."""
        self._inbox.put(job)

    def stop(self) -> None:
        """End after the current step or pass; unfinished jobs end with an InterruptedError."""
        self._stopping.set()
        self._inbox.put(None)
        self._thread.join()

    def _require_running(self) -> None:
        if self._stopping.is_set():
            raise InterruptedError(STOPPED)

    def _run(self) -> None:
        while self._receive():
            try:
                self._work()
            except Exception as error:
                # The states may be inconsistent now, so no job in progress can continue.
                self._under_way.fail(error)
        stopped = InterruptedError(STOPPED)
        self._under_way.fail(stopped)
        for job in self._waiting:
            job.done(stopped)

    def _receive(self) -> bool:
        """Move new jobs to the queue, and wait for one if there is nothing to do; return False to end."""
        while True:
            idle = not self._under_way.jobs and not self._waiting
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)

    def _work(self) -> None:
        """Start waiting jobs if there is room and they are enough for a pass; else do a step of those in progress."""
        self._drop_cancelled()
        fitting = self._fitting()
        self._waited = self._waited + 1 if fitting else 0
        enough = sum(job.search.width for job in fitting) >= START_AT_SHARE * self._limits.rows
        if fitting and (enough or self._waited > MAX_WAITING_STEPS or not self._under_way.jobs):
            self._waited = 0
            for job in fitting:
                self._waiting.popleft()
                job.begun()
            self._begin(fitting)
        elif self._under_way.jobs:
            self._under_way.step(self._model)

    def _begin(self, jobs: list[SearchJob]) -> None:
        try:
            adapter = self._adapter_cache.activate(jobs[0].adapter)
            self._reader.use_adapter(adapter, jobs[0].weights)
            read = self._reader.read([job.tokens for job in jobs])
        except Exception as error:
            # Jobs in progress have states of their own and continue.
            for job in jobs:
                job.done(error)
            return
        for job, evaluated in zip(jobs, read.evaluated, strict=True):
            job.read(evaluated)
        self._under_way.begin(jobs, read)

    def _fitting(self) -> list[SearchJob]:
        """Return the first waiting jobs for which there is room beside those in progress; one alone always fits."""
        together = self._under_way.jobs
        found: list[SearchJob] = []
        for job in self._waiting:
            together = [*together, job]
            rows = sum(each.search.width for each in together)
            longest = max(each.length for each in together)
            fits = rows <= self._limits.rows and rows * longest <= self._limits.positions
            if together[0].weights != job.weights or not (fits or len(together) == 1):
                break
            found.append(job)
        return found

    def _drop_cancelled(self) -> None:
        wanted = deque(job for job in self._waiting if not job.cancelled.is_set())
        for job in self._waiting:
            if job.cancelled.is_set():
                job.done(None)
        self._waiting = wanted


RowMoves = Sequence[tuple[int, int]]
"""The rows that continue, each with its next token; a row may be named several times, or not at all."""


class Search(Protocol):
    """Chooses the tokens of the rows of one job."""

    @property
    def width(self) -> int:
        """The greatest number of rows it has."""

    @property
    def max_tokens(self) -> int:
        """The greatest number of tokens that a row grows by."""

    def advance(self, logits: Tensor) -> RowMoves:
        """Return how the rows continue, given the logits (float32) of their next tokens; empty at the end."""


class SingleSequence:
    """A search with one row, whose tokens ``take`` chooses."""

    width = 1

    def __init__(self, take: Callable[[Tensor], int | None], *, max_tokens: int) -> None:
        """``take`` is called with the logits of the next token, and returns that token, or None at the end."""
        self._take, self.max_tokens = take, max_tokens

    def advance(self, logits: Tensor) -> RowMoves:
        """See ``Search``."""
        token = self._take(logits[0])
        return () if token is None else ((0, token),)


class BeamSearch:
    """Beam search as in transformers with its default settings: answers are ranked by mean log-probability.

    An answer ends with a token of ``ends``, or if ``over`` returns True for its tokens so far.
    """

    def __init__(
        self, width: int, *, max_tokens: int, ends: frozenset[int], over: Callable[[Sequence[int]], bool]
    ) -> None:
        self.width, self.max_tokens = width, max_tokens
        self._ends, self._over = ends, over
        self._running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self.found: list[tuple[float, tuple[int, ...]]] = []
        """Score and tokens of the best answers so far, best first; the tokens include the one that ended it."""

    def advance(self, logits: Tensor) -> RowMoves:
        """See ``Search``."""
        length = len(self._running[0][1]) + 1
        running: list[tuple[float, tuple[int, ...], int]] = []
        for rank, (score, row, token) in enumerate(self._candidates(logits)):
            if rank >= self.width and len(running) == self.width:
                break
            tokens = (*self._running[row][1], token)
            if token in self._ends or length == self.max_tokens or self._over(tokens):
                # As in transformers, an answer that ends counts only among the first ``width`` candidates.
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
        """Return score, row and token of all possible continuations that can matter, best first."""
        each = min(2 * self.width + len(self._ends), logits.shape[1])
        best = logits.log_softmax(-1).topk(each)
        so_far = torch.tensor([score for score, _ in self._running], device=logits.device)
        scores, order = (best.values + so_far[:, None]).flatten().sort(descending=True, stable=True)
        tokens = best.indices.flatten()[order]
        return list(zip(scores.tolist(), (order // each).tolist(), tokens.tolist(), strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchJob:
    """One prompt and its search. The functions are called from the worker's thread."""

    tokens: Sequence[int]
    search: Search
    adapter: AdapterLease | None
    begun: Callable[[], None] = lambda: None
    """Called when the job starts."""
    read: Callable[[int], None] = lambda _evaluated: None
    """Called when the prompt is evaluated, with the number of tokens that had to be computed."""
    done: Callable[[Exception | None], None]
    """Called once at the end, with the exception, if there was one."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def weights(self) -> tuple[str, float] | None:
        """Digest and scale of the adapter; None for the base model alone."""
        return (self.adapter.digest, self.adapter.scale) if self.adapter and self.adapter.scale else None

    @property
    def length(self) -> int:
        """The greatest number of positions that one of its rows can reach."""
        return len(self.tokens) + self.search.max_tokens


@dataclass(frozen=True)
class _RowShare:
    """The number of rows that belong to a job; they follow the rows of the job before it."""

    job: SearchJob
    rows: int


class RunningBatch:
    """The jobs in progress, all with the same adapter."""

    def __init__(self) -> None:
        self._shares: list[_RowShare] = []
        self._rows: KvRows | None = None
        self._next: list[int] = []
        """The next token of each row."""

    @property
    def jobs(self) -> list[SearchJob]:
        """The jobs, in the order in which they were started."""
        return [share.job for share in self._shares]

    def begin(self, jobs: Sequence[SearchJob], read: PrefilledPrompts) -> None:
        """Add jobs; ``read`` has a row for each."""
        shares, tokens = _advance([_RowShare(job, 1) for job in jobs], read.rows, read.logits)
        if not shares:
            return
        if self._rows is None:
            self._rows = read.rows
        else:
            self._rows.append(read.rows)
        self._shares += shares
        self._next += tokens

    def step(self, model: PreTrainedModel) -> None:
        """Add one token to every row; raises ValueError if there is no row."""
        if self._rows is None:
            raise ValueError("there is nothing to do")
        logits = self._rows.step(model, self._next)
        self._shares, self._next = _advance(self._shares, self._rows, logits)
        if not self._shares:
            self._rows = None

    def fail(self, error: Exception) -> None:
        """End all jobs with ``error``."""
        jobs, self._shares, self._rows, self._next = self.jobs, [], None, []
        for job in jobs:
            job.done(error)


def _advance(shares: Sequence[_RowShare], rows: KvRows, logits: Tensor) -> tuple[list[_RowShare], list[int]]:
    """Advance every search, and keep only the rows that continue; return their jobs and next tokens."""
    left: list[_RowShare] = []
    kept: list[int] = []
    tokens: list[int] = []
    first = 0
    for share in shares:
        job, last = share.job, first + share.rows
        failure: Exception | None = None
        moves: RowMoves = ()
        try:
            moves = () if job.cancelled.is_set() else job.search.advance(logits[first:last])
        except Exception as error:
            # An error in one search does not affect the others.
            failure = error
        kept += [first + row for row, _ in moves]
        tokens += [token for _, token in moves]
        first = last
        if moves:
            left.append(_RowShare(job, len(moves)))
        else:
            job.done(failure)
    if kept:
        rows.select(kept)
    return left, tokens
