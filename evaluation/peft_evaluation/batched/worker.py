"""The thread that owns the model: what is begun next, and with what.

Work under one adapter at one scale is done together; another adapter is put on when the last of it is done. Does not
cover what a search is for, nor prompts as text.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_evaluation.batched.reading import PromptReader
from peft_evaluation.batched.work import UnderWay, Work

if TYPE_CHECKING:
    from peft_daemon.engines.torch.adapters import AdapterCache
    from peft_daemon.engines.torch.base_model import LoadedBase

PATIENCE = 8
"""Steps that work waits at most for more to be read with it: reading little takes as long as reading much."""
STOPPED = "the engine was stopped"
ENOUGH = 4
"""What fills a fourth of the rows is read without waiting."""


@dataclass(frozen=True)
class Limits:
    """How much is done at once."""

    rows: int
    positions: int
    """Of all rows together, each counted as long as the longest may become: they have to fit into memory."""
    reading: int
    """Tokens of prompts that are read in one pass."""


class Worker:
    """Works until it is stopped."""

    def __init__(self, base: LoadedBase, shelf: AdapterCache, limits: Limits) -> None:
        self._model, self._shelf, self._limits = base.model, shelf, limits
        self._reader = PromptReader(base.model, tokens_at_once=limits.reading, check=self._go_on_reading)
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._waiting: deque[Work] = deque()
        self._waited = 0
        self._under_way = UnderWay()
        self._thread = threading.Thread(target=self._run, name="batched answers", daemon=True)
        self._thread.start()

    def put(self, work: Work) -> None:
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
        enough = sum(work.search.width for work in fitting) * ENOUGH >= self._limits.rows
        if fitting and (enough or self._waited > PATIENCE or not self._under_way.works):
            self._waited = 0
            for work in fitting:
                self._waiting.popleft()
                work.begun()
            self._begin(fitting)
        elif self._under_way.works:
            self._under_way.step(self._model)

    def _begin(self, works: list[Work]) -> None:
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

    def _fitting(self) -> list[Work]:
        """The first of what waits, as far as there is room beside what is under way; one always fits alone."""
        together = self._under_way.works
        found: list[Work] = []
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
