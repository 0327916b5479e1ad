"""What users and editors ask of learning in the background: its state in words, and their choices.

The daemon's routes and the command line use it; without a daemon nothing can be learned now, all else works.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from peft_core.api_types import LearningAction, LearningRequest
from peft_core.errors import Conflict, InvalidInput, NotFound, PeftDaemonError, Unavailable
from peft_core.status_types import (
    LearningActivity,
    LearningChoice,
    LearningStatus,
    RepositoryLearning,
    ServingAdapter,
)
from peft_daemon.learning import repository, versions
from peft_daemon.learning.conditions import YOU_PAUSED
from peft_daemon.learning.learner import Learner
from peft_daemon.learning.log import LearningEvent
from peft_daemon.learning.state import Pause, RepositoryState

log = logging.getLogger("peft_daemon.learning")

PACKAGES = ("torch", "transformers", "peft", "accelerate")
"""What a run imports, and what is not part of the base installation."""
ASK_AGAIN_S = 30 * 24 * 3600.0
"""After "not now", a repository is asked about again after so long."""
LOOK_AGAIN_S = 600.0
"""How long it is believed that a repository has enough code to ask about, or too little; editors ask often."""
SHOWN_S = 24 * 3600.0
"""How long the end of a run is shown in the status."""


class LearningService:
    """Answers for one learner."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._store, self._settings = learner, learner.store, learner.settings
        self._worth_asking: dict[str, tuple[float, bool]] = {}
        """Whether a repository has enough code to ask about, and when that was found out."""

    async def act(self, request: LearningRequest) -> LearningStatus:
        """Do what the user wants; return the state after that.

        Raises InvalidInput without a git work tree, or where a run could learn nothing; NotFound where packages of
        tuning are missing; Unavailable where the machine has no room for a run; Conflict where nothing can be rolled
        back, or (LATER) another editor asks already.
        """
        if request.action in (LearningAction.PAUSE, LearningAction.RESUME):
            await self._pause(request)
            return await self.status(request.repository)
        found = await asyncio.to_thread(repository.require_tree, Path(request.repository))
        root = str(found.root)
        if request.action in (LearningAction.ON, LearningAction.NOW):
            await asyncio.to_thread(self._store.change, root, lambda state: state.in_tree(found.tree))
        match request.action:
            case LearningAction.ON:
                _require_packages()
                await self._choose(root, LearningChoice.ON, "switched on")
            case LearningAction.OFF:
                await self._choose(root, LearningChoice.OFF, "switched off")
                self._learner.end_run(root, "you switched it off")
            case LearningAction.LATER:
                await self._choose(root, LearningChoice.LATER, "asked; not now", only_if=self._should_ask)
            case LearningAction.NOW:
                await self._now(root)
            case LearningAction.ROLLBACK:
                await asyncio.to_thread(self._learner.go_back, root, "you asked for it")
        self._learner.wake()
        return await self.status(root)

    async def _choose(
        self,
        root: str,
        choice: LearningChoice,
        words: str,
        only_if: Callable[[RepositoryState], bool] = lambda state: True,
    ) -> None:
        def changed(state: RepositoryState) -> RepositoryState:
            if not only_if(state):
                raise Conflict(f"{root} is not to be asked about now", why="somebody else asked, or was answered")
            return msgspec.structs.replace(state, choice=choice, asked_at=time.time(), retry_at=0.0)

        await asyncio.to_thread(self._store.change, root, changed)
        self._learner.note(root, LearningEvent.SWITCHED, words)

    async def _pause(self, request: LearningRequest) -> None:
        """Begin a pause for all repositories, or end it."""
        pause = None
        if request.action is LearningAction.PAUSE:
            now = time.time()
            pause = Pause(None if request.seconds is None else now + request.seconds, now)
        # Without an await in between: the run that pauses for it is noted after it.
        self._store.set_pause(pause)
        self._learner.note("", LearningEvent.SWITCHED, f"you paused it {pause.words}" if pause else "you resumed it")
        if pause:
            self._learner.give_way(YOU_PAUSED.format(pause.words))
        self._learner.wake()

    async def _now(self, root: str) -> None:
        _require_packages()
        if self._store.pause():
            await self._pause(LearningRequest(action=LearningAction.RESUME, repository=root))
        if self._learner.is_asked(root):
            return
        found = await asyncio.to_thread(repository.survey, self._store.get(root).work_tree)
        if found.objection:
            raise InvalidInput(
                f"nothing can be learned of {root}",
                why=found.objection,
                fix="Commit some code of your own first"
                if not found.head
                else "`peft-daemon tune --repo . --plan` says more",
            )
        if self._learner.current is None or self._learner.current.root != root:
            needs = self._learner.needs(await asyncio.to_thread(self._store.get, root), asked=True)
            if why := await self._learner.why_not_now(needs):
                raise Unavailable("a run cannot begin now", why=why, fix="Try again when that has changed")
        self._learner.ask(root)

    async def status(self, folder: str | None = None) -> LearningStatus:
        """Return the state of all repositories that are known, and of that of ``folder``."""
        states = await asyncio.to_thread(self._store.all)
        missing = missing_packages()
        here = None
        if folder is not None and (tree := await self._learner.trees.find(folder)) is not None:
            root = str(tree.root)
            state = next((each for each in states if each.root == root), RepositoryState(root=root)).in_tree(tree.tree)
            ask = not missing and await asyncio.to_thread(self._should_ask, state)
            why_not = "" if self._learner.waits.get(root) else await asyncio.to_thread(self._why_not, state)
            serving = await asyncio.to_thread(self._serving, state)
            here = msgspec.structs.replace(self._repository(state, why_not), ask=ask, serving=serving)
        pause = self._store.pause()
        return LearningStatus(
            setting=self._settings.learn,
            line=self.line(states),
            paused=pause.words if pause else "",
            minutes_today=round(self._store.minutes_today(), 1),
            minutes_a_day=self._settings.learn_minutes,
            missing=list(missing),
            repositories=[self._repository(each) for each in states],
            here=here,
        )

    def line(self, states: list[RepositoryState] | None = None) -> str:
        """Return what a status shows: the run under way, a pause, or how the last one ended within a day."""
        if (current := self._learner.current) is not None:
            return current.line
        if pause := self._store.pause():
            return f"learning is paused {pause.words}"
        states = self._store.all() if states is None else states
        last = max(states, key=lambda each: each.last_at, default=None)
        if last is None or abs(time.time() - last.last_at) > SHOWN_S:
            return ""
        return f"learned {Path(last.root).name} at {time.strftime('%H:%M', time.localtime(last.last_at))}: {last.last}"

    def _repository(self, state: RepositoryState, why_not: str = "") -> RepositoryLearning:
        current = self._learner.current
        told = RepositoryLearning(
            root=state.root,
            choice=state.choice,
            activity=LearningActivity.OFF,
            line="not switched on",
            last=state.last,
            last_at=state.last_at,
            adapter=state.adapter,
            in_use=state.serving is not None,
            learned=state.learned,
            asked=self._learner.is_asked(state.root),
        )
        if current is not None and current.root == state.root:
            progress = current.run.progress
            return msgspec.structs.replace(
                told,
                activity=current.activity,
                line=current.line,
                step=progress.step,
                steps=progress.steps,
                pid=current.run.pid,
            )
        if told.asked:
            line = f"waits: {Path(current.root).name} is learned first" if current else "begins in a moment"
            return msgspec.structs.replace(told, activity=LearningActivity.WAITING, line=line)
        if state.choice is LearningChoice.OFF:
            return msgspec.structs.replace(told, line="switched off")
        if self._settings.learn == "off":
            return msgspec.structs.replace(told, line="switched off by the setting `learn`")
        if not self._learner.may_learn(state):
            return told
        until = (
            "an idle machine" if self._learner.is_started else "a daemon, which editors and `peft-daemon start` start"
        )
        pause = self._store.pause()
        why = YOU_PAUSED.format(pause.words) if pause else self._learner.waits.get(state.root) or why_not or until
        return msgspec.structs.replace(told, activity=LearningActivity.WAITING, line=f"waits: {why}")

    def _serving(self, state: RepositoryState) -> ServingAdapter | None:
        try:
            return versions.describe_serving(self._learner.registry, state)
        except (PeftDaemonError, ValueError) as error:
            log.info("what serves %s cannot be told: %s", state.root, error)
            return None

    def _why_not(self, state: RepositoryState) -> str:
        if missing := missing_packages():
            return f"{', '.join(missing)} not installed"
        return self._learner.why_not_due(state) if self._learner.may_learn(state) else ""

    def _should_ask(self, state: RepositoryState) -> bool:
        if self._settings.learn != "ask" or state.choice in (LearningChoice.ON, LearningChoice.OFF):
            return False
        if state.choice is LearningChoice.LATER and abs(time.time() - state.asked_at) < ASK_AGAIN_S:
            return False
        looked_at, worth = self._worth_asking.get(state.root, (-math.inf, False))
        if time.monotonic() - looked_at > LOOK_AGAIN_S:
            try:
                worth = repository.survey(state.work_tree).is_worth_asking
            except PeftDaemonError:
                worth = False
            self._worth_asking[state.root] = time.monotonic(), worth
        return worth


def missing_packages() -> tuple[str, ...]:
    """Return the packages of tuning that are not installed."""
    return tuple(each for each in PACKAGES if find_spec(each) is None)


def _require_packages() -> None:
    if missing := missing_packages():
        raise NotFound(
            f"learning in the background needs {', '.join(missing)}",
            fix="`peft-daemon learn on`, typed in a terminal, says how to install them",
        )
