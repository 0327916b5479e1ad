"""The daemon's task that learns repositories in the background: decide, run, watch, keep or take back.

One run at a time. What is remembered lies in files (``state``), so a killed daemon loses nothing but the steps since
the last checkpoint. The command line uses the same class where no daemon runs; it starts no run then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from peft_core.api_types import CompleteResponse, FeedbackRequest, Outcome
from peft_core.errors import PeftDaemonError
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_core.status_types import LearningChoice
from peft_core.tasks import cancel_and_wait, wait_for_event
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.learning import repository, versions
from peft_daemon.learning.conclusion import RETRY_S, Conclusion, conclude
from peft_daemon.learning.conditions import IN_USE, MachineReader, MachineState, RunNeeds, Verb, may_begin, may_go_on
from peft_daemon.learning.log import LearningEvent, LearningLog
from peft_daemon.learning.repository import TreeFinder
from peft_daemon.learning.run import CurrentRun, RunEnd, TuningRun, run_environment, tune_command
from peft_daemon.learning.sequential import compare
from peft_daemon.learning.state import LearningStore, PendingRun, RepositoryState
from peft_daemon.lifecycle.runtime_info import find_running_tuning

log = logging.getLogger("peft_daemon.learning")

MAX_BUDGET_S = 1_800.0
"""Of one run; a longer one learns more, but is rarely done in one idle time."""
BUDGET_SHARE = 0.75
"""Part of today's time that a run is given: it also loads, and other programs slow it down."""
MIN_MINUTES = 5.0
"""With less of today's time left no run is begun."""
LOOK_S = 60.0
"""Between two looks for something new in the repositories."""
WATCH_S = 5.0
"""Between two looks at the machine while a run is under way."""
MAX_PAUSE_S = 900.0
"""A process that was stopped for so long gives its memory back."""
CLOSE_S = 3.0
"""What a run may take to save a checkpoint when the daemon ends."""
COUNT_S = 60.0
"""So often the time of a run is written down."""
MEMORY_FACTOR, MIN_MEMORY_BYTES = 10, 1_000_000_000
"""The memory that a run is assumed to need, by the size of the base's file, until one was measured."""
MEMORY_MARGIN = 1.1
MIN_UNLEARNED = 50
"""With so many documents left that the last run had no time for, the next one learns them, new code or not."""
MAX_OFFERS, MAX_VISITS = 512, 32


@dataclass(frozen=True)
class LearnedBase:
    """The base model that is tuned."""

    sha256: str
    bytes: int


class Learner:
    """Learns the repositories that the user agreed to."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        registry: AdapterRegistry,
        base: LearnedBase,
        idle_s: Callable[[], float],
        *,
        machine: MachineReader | None = None,
    ) -> None:
        """``idle_s`` tells the seconds since the last request of a client."""
        self.settings, self.paths, self.registry, self.base = settings, paths, registry, base
        self.store, self.log = LearningStore(paths), LearningLog(paths)
        self.current: CurrentRun | None = None
        self.waits: dict[str, str] = {}
        """Why repositories are not learned now, by path."""
        self._idle_s = idle_s
        self._machine = machine or MachineReader(paths)
        self._asked: list[str] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._offers: dict[str, str] = {}
        """Folders of the suggestions shown lately, by the suggestion's id."""
        self._visits: dict[str, float] = {}
        """When completions were asked for lately, by folder; the newest last."""
        self.trees = TreeFinder()

    def start(self) -> None:
        """Begin to look for something to learn."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """End the run that is under way, with a checkpoint if that does not take long."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    @property
    def is_started(self) -> bool:
        """Whether it looks for something to learn; without a daemon nobody does."""
        return self._task is not None

    @property
    def is_running(self) -> bool:
        """Whether a run is under way, paused or not: a reason for the daemon to stay."""
        return self.current is not None

    @property
    def name(self) -> str:
        """Name of the adapter that is being learned; empty: none."""
        return self.current.name if self.current is not None else ""

    def wake(self) -> None:
        """Look now for something to learn."""
        self._wake.set()

    def ask(self, root: str) -> None:
        """Learn a repository now, without waiting for an idle machine."""
        if self.current is not None and self.current.root == root:
            self.current.ask()
        elif root not in self._asked:
            self._asked.append(root)
        self.wake()

    def is_asked(self, root: str) -> bool:
        """Whether the user waits for a repository to be learned."""
        return root in self._asked or (
            self.current is not None and self.current.needs.asked and self.current.root == root
        )

    def end_run(self, root: str, why: str) -> None:
        """End the run of a repository that is under way, and forget the wish for one."""
        self._asked = [each for each in self._asked if each != root]
        if self.current is not None and self.current.root == root:
            self.current.end(Verb.END, why)

    # What the daemon tells

    def request_began(self) -> None:
        """Stop the run at once: somebody uses completions."""
        self.give_way(IN_USE)

    def give_way(self, why: str) -> None:
        """Stop the run that is under way at once."""
        if self.current is not None and self.current.pause(why):
            self.note(self.current.root, LearningEvent.PAUSED, f"{why}; {self.current.run.progress.words}")

    def shown(self, folder: str | None, response: CompleteResponse) -> None:
        """Remember where a completion was shown."""
        if not folder:
            return
        known = folder in self._visits
        self._visits.pop(folder, None)
        self._visits[folder] = time.time()
        self._offers[response.id] = folder
        for bounded, most in ((self._visits, MAX_VISITS), (self._offers, MAX_OFFERS)):
            while len(bounded) > most:
                del bounded[next(iter(bounded))]
        if not known and self.settings.learn == "on":
            self.wake()

    async def record(self, told: FeedbackRequest) -> None:
        """Count what became of a suggestion, and go back to the adapter before if this one is accepted less often."""
        folder = self._offers.pop(told.offer, None) or told.path
        if folder is None or told.outcome is Outcome.TYPED:
            return
        found = await self.trees.find(folder)
        if found is None or not self.may_learn(state := self.store.get(root := str(found.root))):
            return
        digest = told.adapter.digest if told.adapter else ""
        accepted = told.outcome is not Outcome.REJECTED
        state = await asyncio.to_thread(
            self.store.change, root, lambda each: each.with_outcome(digest, accepted=accepted)
        )
        version = state.serving
        if version is None or digest != version.digest:
            return
        comparison = compare(state.outcomes.get(version.before, ""), state.outcomes.get(digest, ""))
        if comparison.is_loss:
            await asyncio.to_thread(self.go_back, root, comparison.words)

    def may_learn(self, state: RepositoryState) -> bool:
        """Whether the user agreed that a repository is learned: for itself, or by the setting for all."""
        if self.settings.learn == "off" or state.choice is LearningChoice.OFF:
            return False
        return state.choice is LearningChoice.ON or self.settings.learn == "on"

    def go_back(self, root: str, why: str) -> RepositoryState:
        """Let serve what served before the version in use; raises Conflict if there is none. Blocks."""
        last = f"taken back: {why}"

        def changed(state: RepositoryState) -> RepositoryState:
            return msgspec.structs.replace(
                versions.go_back(self.registry, state), last=last, last_at=time.time(), failures=0
            )

        state = self.store.change(root, changed)
        self.note(root, LearningEvent.ROLLED_BACK, why)
        return state

    # The task

    async def _work(self) -> None:
        while True:
            wait_s: float | None
            try:
                wait_s = await self._look()
            except (PeftDaemonError, OSError) as error:
                log.warning("learning in the background: %s", error)
                wait_s = RETRY_S[0]
            except Exception:  # nobody else would hear of it
                log.exception("learning in the background failed")
                wait_s = RETRY_S[-1]
            await wait_for_event(self._wake, wait_s)
            self._wake.clear()

    async def _look(self) -> float | None:
        """Learn what is due; return after how many seconds to look again, None: when woken."""
        while self._asked:
            root = self._asked[0]
            try:
                state = await asyncio.to_thread(self.store.get, root)
                needs = self.needs(state, asked=True)
                if why := await self.why_not_now(needs):
                    self.waits[root] = why
                else:
                    await self._learn(state, needs)
            finally:
                self._asked = [each for each in self._asked if each != root]
        candidates = await self._candidates()
        if not candidates:
            return None
        if (left := self.minutes_left()) < min(MIN_MINUTES, self.settings.learn_minutes):
            self.waits = dict.fromkeys((each.root for each in candidates), "today's minutes are used")
            return LOOK_S
        if (idle := self._idle_s()) < self.settings.learn_idle_s:
            recent = f"completions were used in the last {self.settings.learn_idle_s} s"
            self.waits = dict.fromkeys((each.root for each in candidates), recent)
            return self.settings.learn_idle_s - idle + 0.01
        machine = await self._machine_now()
        for state in candidates:
            needs = self.needs(state, asked=False)
            # No repository is read on a machine that is not free, for instance on battery.
            why_not = may_begin(machine, needs).why or await asyncio.to_thread(self.why_not_due, state)
            self.waits[state.root] = why_not
            if not why_not:
                await self._learn(state, needs, minutes=left)
                return 0.0
        return LOOK_S

    async def _candidates(self) -> list[RepositoryState]:
        """The repositories that may be learned, those used lately first."""
        trees = [tree for folder in reversed(self._visits) if (tree := await self.trees.find(folder)) is not None]
        visited = [str(tree.root) for tree in trees]
        known = {state.root: state for state in await asyncio.to_thread(self.store.all)}
        if self.settings.learn == "on":
            for root in visited:
                known.setdefault(root, RepositoryState(root=root))
        for tree in reversed(trees):  # the newest last
            if (state := known.get(str(tree.root))) is not None:
                known[state.root] = state.in_tree(tree.tree)
        order = {root: number for number, root in reversed([*enumerate(visited)])}
        found = [state for state in known.values() if self.may_learn(state)]
        return sorted(found, key=lambda state: (order.get(state.root, len(order)), state.root))

    def minutes_left(self) -> float:
        """Return how many minutes may be learned today yet."""
        return max(0.0, self.settings.learn_minutes - self.store.minutes_today())

    def why_not_due(self, state: RepositoryState) -> str:
        """Return why a repository is not to be learned now, in words; empty if it is due. Blocks."""
        root = state.work_tree
        if not root.is_dir():
            return "its folder is gone"
        if 0 < state.retry_at - time.time() <= RETRY_S[-1]:  # later than that: the clock was set back since
            return f"tries again {_when(state.retry_at)}: {state.last}"
        begun = state.learned and not state.pending and state.base_sha256 == self.base.sha256
        more = not begun or state.unlearned >= MIN_UNLEARNED
        try:
            if not more and repository.newest_commit(root) == state.learned:
                return repository.NOTHING_NEW.format(state.learned[:7])
            found = repository.survey(root)
            objection = found.objection
            if not objection and state.choice is not LearningChoice.ON and not found.is_worth_asking:
                objection = "too little code or history to learn by itself"
            if objection or more:
                return objection
            return repository.why_nothing_new(found, state.learned)
        except PeftDaemonError as error:
            return error.cause

    def needs(self, state: RepositoryState, *, asked: bool) -> RunNeeds:
        """Return what a run of a repository needs."""
        assumed = max(MIN_MEMORY_BYTES, MEMORY_FACTOR * self.base.bytes)
        memory = int(state.peak_bytes * MEMORY_MARGIN) if state.peak_bytes else assumed
        return RunNeeds(idle_s=self.settings.learn_idle_s, memory_bytes=memory, asked=asked)

    async def why_not_now(self, needs: RunNeeds) -> str:
        """Return why the machine is not free for a run, in words; empty if it is."""
        return may_begin(await self._machine_now(), needs).why

    async def _machine_now(self, *, cores: bool = True) -> MachineState:
        other = find_running_tuning(self.paths) if self.current is None else None
        machine = await asyncio.to_thread(
            self._machine.read, idle_s=self._idle_s(), other_run=other.name if other else "", cores=cores
        )
        pause = self.store.pause()
        return replace(machine, paused=pause.words if pause else "")

    async def _learn(self, state: RepositoryState, needs: RunNeeds, minutes: float | None = None) -> None:
        """Run, watch and conclude. ``minutes`` are those left today."""
        self.waits.pop(state.root, None)
        current = await self._begin(state, needs, minutes)
        try:
            await asyncio.to_thread(self._conclude, current, await self._watch(current))
        finally:
            current.run.kill()  # one that nobody watches would not give way
            self.current = None

    async def _begin(self, state: RepositoryState, needs: RunNeeds, minutes: float | None) -> CurrentRun:
        same_base = state.base_sha256 == self.base.sha256
        resume = state.pending is not None and same_base and versions.can_resume(self.paths, state.adapter)
        state, pending = await asyncio.to_thread(self._prepare, state, resume, minutes)
        command = tune_command(str(state.work_tree), state.adapter, budget_s=pending.budget_s, resume=resume)
        run = await TuningRun.start(command, run_environment(self.settings, self.paths, os.environ))
        limit_s = math.inf if minutes is None else minutes * 60
        self.current = CurrentRun(state, run, pending, needs, resumed=resume, limit_s=limit_s)
        event = LearningEvent.RESUMED if resume else LearningEvent.STARTED
        asked = ", as you asked" if needs.asked else ""
        self.note(state.root, event, f"'{state.adapter}', up to {pending.head[:7]}{asked}", {"pid": float(run.pid)})
        return self.current

    def _prepare(
        self, state: RepositoryState, resume: bool, minutes: float | None
    ) -> tuple[RepositoryState, PendingRun]:
        """Write down that a run begins, and clear the place for a new one."""
        pending = state.pending if resume else None
        if pending is None:
            budget_s = MAX_BUDGET_S if minutes is None else min(MAX_BUDGET_S, minutes * 60 * BUDGET_SHARE)
            head = repository.survey(state.work_tree).head
            digest, setting = versions.serving_now(self.registry, state.root)
            own = self.registry.own_setting(Path(state.root))
            pending = PendingRun(
                head=head,
                budget_s=round(budget_s),
                began=time.time(),
                before=digest,
                setting_before=setting,
                context_before=own.context if own else 0,
            )
        others = [each.adapter for each in self.store.all() if each.root != state.root]
        name = versions.choose_name(self.registry, state, others, self.base.sha256)
        if not resume:
            shutil.rmtree(versions.run_folder(self.paths, name), ignore_errors=True)
        changes = {
            **{"adapter": name, "base_sha256": self.base.sha256, "pending": pending, "retry_at": 0.0},
            "tree": state.tree,
        }
        return self.store.change(state.root, lambda each: msgspec.structs.replace(each, **changes)), pending

    async def _watch(self, current: CurrentRun) -> RunEnd:
        """Pause, continue or end the run as the machine demands; return how it ended."""
        ended = asyncio.create_task(current.run.wait())
        counted_s = 0.0
        try:
            while not ended.done():
                left_s = current.needs.wait_s - self._idle_s()
                await asyncio.wait((ended,), timeout=min(WATCH_S, left_s + 0.05) if left_s > 0 else WATCH_S)
                if not ended.done() and not current.ending:
                    await self._decide(current)
                if current.ran_s - counted_s >= COUNT_S or ended.done():
                    with contextlib.suppress(PeftDaemonError):  # a full disk: it is counted with the next minute
                        self.store.add_minutes((current.ran_s - counted_s) / 60)
                        counted_s = current.ran_s
            return ended.result()
        except asyncio.CancelledError:
            current.ending = "the daemon ended"
            await current.run.end_within(CLOSE_S)
            with contextlib.suppress(PeftDaemonError, OSError):  # they must not take the place of the cancellation
                self._conclude(current, await ended)
            raise

    async def _decide(self, current: CurrentRun) -> None:
        # While somebody types the cores are not looked at, which takes a moment of this process.
        in_use = self._idle_s() < current.needs.wait_s
        decision = may_go_on(await self._machine_now(cores=not in_use), current.needs)
        words = current.run.progress.words
        if current.paused_s > MAX_PAUSE_S:
            current.end(Verb.KILL, f"it was paused for {MAX_PAUSE_S / 60:.0f} minutes")
        elif current.ran_s > current.limit_s:
            current.end(Verb.END, "today's minutes are used")
        elif decision.verb in (Verb.END, Verb.KILL):
            # A run that took too much memory would do so again at once.
            current.wait_s = RETRY_S[0] if decision.verb is Verb.KILL else 0.0
            current.end(decision.verb, decision.why)
        elif decision.verb is Verb.PAUSE:
            if current.pause(decision.why):
                self.note(current.root, LearningEvent.PAUSED, f"{decision.why}; {words}")
        elif self._idle_s() >= current.needs.wait_s and current.resume():
            self.note(current.root, LearningEvent.CONTINUED, words)

    def _conclude(self, current: CurrentRun, end: RunEnd) -> None:
        """Write down how a run ended; remove what is not needed any more. Blocks."""
        conclusions: list[Conclusion] = []

        def changed(state: RepositoryState) -> RepositoryState:
            found = conclude(
                state,
                current.pending,
                end,
                ending=current.ending,
                wait_s=current.wait_s,
                resumed=current.resumed,
            )
            conclusions.append(found)
            return found.state

        state = self.store.change(current.root, changed)
        for found in conclusions:
            self.note(current.root, found.event, found.text, found.figures)
        if end.registered is not None:
            left, removed = versions.remove_old(self.registry, self.paths, state, newest=end.registered.digest)
            self.store.change(current.root, lambda each: msgspec.structs.replace(each, unused=left))
            if removed:
                self.note(current.root, LearningEvent.REMOVED, f"{removed} earlier versions of '{state.adapter}'")

    def note(self, root: str, event: LearningEvent, text: str, figures: Mapping[str, float] | None = None) -> None:
        """Add to the log; a disk that is full only loses the line."""
        log.info("%s: %s: %s", root, event, text)
        with contextlib.suppress(PeftDaemonError):
            self.log.add(root, event, text, figures)


def _when(moment: float) -> str:
    return time.strftime("%a %H:%M", time.localtime(moment))
