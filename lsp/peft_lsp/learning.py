"""Learning in the background, as the editor sees it: one line of the status, and one question for each repository.

The daemon is asked now and then, but never started for that: it may have left because nobody needed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from peft_core.api_types import LearningAction, LearningRequest
from peft_core.status_types import LearningStatus, RepositoryLearning
from peft_core.tasks import BackgroundTasks
from peft_lsp.client import Client
from peft_lsp.daemon_connection import DaemonConnection

POLL_S = 15.0
"""Between two looks at what the daemon learns."""
FIRST_POLLS_S = 1.0
"""The same until the daemon answered for the first time."""

log = logging.getLogger(__name__)

YES, LATER, NEVER = "Yes", "Not now", "Never"
ANSWERS = {YES: LearningAction.ON, LATER: LearningAction.LATER, NEVER: LearningAction.OFF}


class LearningWatcher:
    """Follows what the daemon learns, and asks the user where the daemon says that it is time to."""

    def __init__(
        self,
        daemon: DaemonConnection,
        client: Client,
        folders: Callable[[], list[str]],
        show_line: Callable[[str], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        """``folders`` are those of the workspace; ``show_line`` shows what is learned."""
        self._daemon, self._client, self._folders, self._show_line = daemon, client, folders, show_line
        self._poll_s = poll_s
        self._asked: set[str] = set()
        self._tasks = BackgroundTasks(log, "the state of learning cannot be followed")

    def start(self) -> None:
        """Begin to follow; returns at once."""
        if not len(self._tasks):
            self._tasks.spawn(self._follow())

    def close(self) -> None:
        """Stop following; an open question is left to the editor."""
        self._tasks.cancel()

    async def _follow(self) -> None:
        known = False
        while True:
            for folder in self._folders() or [""]:
                told = await self._daemon.learning(folder or None)
                if told is None:
                    continue
                known = True
                self._show_line(told.line)
                if told.here is not None:
                    self._consider(told.here)
            await asyncio.sleep(self._poll_s if known else min(FIRST_POLLS_S, self._poll_s))

    def _consider(self, here: RepositoryLearning) -> None:
        if here.ask and self._client.shows_questions and here.root not in self._asked:
            self._asked.add(here.root)
            self._tasks.spawn(self._ask(here.root))

    async def _ask(self, root: str) -> None:
        # Told before the question is shown, so that no second editor asks too; a dismissed question means the same.
        if await self._tell(root, LearningAction.LATER) is None:
            self._asked.discard(root)
            return
        message = (
            f"Learn {root} in the background, when the machine is idle? Suggestions get closer to your code. "
            "Nothing leaves the machine."
        )
        answer = ANSWERS.get(await self._client.ask(message, tuple(ANSWERS)) or LATER, LearningAction.LATER)
        if answer is not LearningAction.LATER:
            await self._tell(root, answer)

    async def _tell(self, root: str, action: LearningAction) -> LearningStatus | None:
        return await self._daemon.learn(LearningRequest(action=action, repository=root))
