"""``$/progress``: a bar in the editor for work that takes a while, with a way to stop it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.progress import Progress

T = TypeVar("T")
ProgressToken = str | int


class ProgressBar:
    """One bar; without a token nothing is shown."""

    def __init__(self, progress: Progress, token: ProgressToken | None) -> None:
        self._progress, self._token = progress, token

    def report(self, message: str) -> None:
        """Show how far the work is."""
        if self._token is not None:
            self._progress.report(self._token, types.WorkDoneProgressReport(message=message))

    async def stoppable(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work; None if the user stopped it with the bar's button."""
        task = asyncio.create_task(work)
        if self._token is not None:
            self._progress.tokens[self._token].add_done_callback(lambda _: task.cancel())
        try:
            return await task
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) and this.cancelling():
                raise  # the request itself was cancelled
            return None


@asynccontextmanager
async def open_progress_bar(
    progress: Progress, token: ProgressToken | None, title: str, *, cancellable: bool
) -> AsyncIterator[ProgressBar]:
    """A bar that stands while this is open; without a token there is none."""
    if token is not None:
        progress.begin(token, types.WorkDoneProgressBegin(title=title, cancellable=cancellable))
    try:
        yield ProgressBar(progress, token)
    finally:
        if token is not None:
            progress.end(token, types.WorkDoneProgressEnd())
            progress.tokens.pop(token, None)


async def create_progress_token(progress: Progress) -> ProgressToken | None:
    """A token for a bar the server begins; None if the client does not want it."""
    token = str(uuid.uuid4())
    try:
        await progress.create_async(token)
    except JsonRpcException:
        return None
    return token
