"""Requests that the language server answered with nothing by itself, told to the daemon so that ``why`` knows them.

Noting one costs a keystroke next to nothing: the daemon is told later, of the last ones only. Without a daemon they
stay here, where ``peft-daemon.why`` finds them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from peft_core.api_types import CompleteResponse
from peft_core.code.document import document_name
from peft_core.decisions import MAX_REPORTED, Decider, RequestDecision
from peft_core.tasks import BackgroundTasks
from peft_lsp.documents import DocumentSnapshot

REPORT_AFTER_S = 1.0
"""How long after the first silence the daemon is told of it and of those that follow."""

log = logging.getLogger(__name__)

SendDecisions = Callable[[Sequence[RequestDecision]], Awaitable[bool]]
"""Tell the daemon; returns whether it was told."""


class Silences:
    """The last silences of one editor."""

    def __init__(self, send: SendDecisions, workspace_of: Callable[[str | None], str | None]) -> None:
        """``workspace_of`` returns the workspace folder of a file's path, None for a file in none."""
        self._send, self._workspace_of = send, workspace_of
        self._untold: deque[RequestDecision] = deque(maxlen=MAX_REPORTED)
        self._timer: asyncio.TimerHandle | None = None
        self._sending = BackgroundTasks(log, "the daemon could not be told of silences")

    @property
    def untold(self) -> list[RequestDecision]:
        """Those that the daemon does not know yet."""
        return list(self._untold)

    def note(
        self, snapshot: DocumentSnapshot, decider: Decider, detail: str = "", *, dropped: CompleteResponse | None = None
    ) -> None:
        """Note that nothing is shown at a snapshot's cursor; ``dropped`` is the answer that came too late."""
        self._untold.append(
            RequestDecision(
                id=dropped.id if dropped else uuid.uuid4().hex,
                at=time.time(),
                decider=decider,
                detail=detail,
                editor=True,
                document=document_name(snapshot.path or snapshot.uri, self._workspace_of(snapshot.path)),
                line=snapshot.line + 1,
                column=snapshot.offset + 1,
                model=dropped.model if dropped else "",
                adapter=dropped.adapter.name if dropped and dropped.adapter else "",
            )
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REPORT_AFTER_S, self._report_due)

    async def report(self) -> None:
        """Tell the daemon now; what it cannot be told stays."""
        decisions = self.untold
        if decisions and await self._send(decisions):
            told = {each.id for each in decisions}
            self._untold = deque((each for each in self._untold if each.id not in told), maxlen=MAX_REPORTED)

    def close(self) -> None:
        """Stop reporting."""
        if self._timer is not None:
            self._timer.cancel()
        self._sending.cancel()

    def _report_due(self) -> None:
        self._timer = None
        self._sending.spawn(self.report())
