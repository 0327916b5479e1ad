"""The daemon as the language server sees it: connected in the background, watched while it loads, never waited for.

Editing must go on whatever the daemon does: a completion that cannot be had now is None, and the status says why.
Explicit commands use ``client()`` and get the daemon's own errors. Does not start processes: ``peft_daemon.client``
does, when it connects and nothing answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from peft_core.api_types import (
    CompleteRequest,
    CompleteResponse,
    ContextChanged,
    EngineState,
    FeedbackRequest,
    FinishReason,
)
from peft_core.errors import Conflict, PeftDaemonError, Unavailable
from peft_core.tasks import BackgroundTasks
from peft_daemon.client import DaemonClient
from peft_lsp.status import ServerState, StatusBoard

log = logging.getLogger(__name__)

POLL_S = 0.25
"""How often a loading daemon is asked whether it is ready."""
RETRY_S = 10.0
"""After a failure, completions wait this long before they try to reach a daemon again."""
READY_TIMEOUT_S = 120.0
"""A model that is not loaded by then will not be."""
CANCEL_AFTER_S = 0.25
"""How long the daemon goes on with a cancelled request: that of the next key, if it agrees, takes over its answer."""
UNFINISHED = frozenset({FinishReason.SUPERSEDED, FinishReason.CANCELLED})


class DaemonConnection:
    """One connection, shared by all requests of this editor."""

    def __init__(
        self, board: StatusBoard, connect: Callable[[], Awaitable[DaemonClient]] = DaemonClient.connect
    ) -> None:
        self._board = board
        self._connect = connect
        self._client: DaemonClient | None = None
        self._connecting: asyncio.Task[DaemonClient] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._asking = BackgroundTasks(log, "a request to the daemon failed", Exception)
        self._retry_at = 0.0

    def start(self) -> None:
        """Begin to connect, and to watch the daemon until its model is loaded; returns at once."""
        running = self._watching is not None and not self._watching.done()
        if not running and time.monotonic() >= self._retry_at:
            self._watching = asyncio.create_task(self._watch())

    async def client(self) -> DaemonClient:
        """The connected client; raises the PeftDaemonError that keeps it from connecting."""
        if self._client is None:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._open())
            # A cancelled request must not tear down the connection that others wait for.
            return await asyncio.shield(self._connecting)
        return self._client

    async def complete(self, request: CompleteRequest) -> CompleteResponse | None:
        """The model's answer; None when there is none to be had now.

        Cancelling stops the model a moment later, unless a newer request for the document goes on with its answer.
        """
        if self._client is None or self._board.status.state is ServerState.LOADING:
            self.start()
            return None
        began = time.monotonic()
        try:
            with self._board.thinking():
                response = await self._ask(self._client, request)
        except Unavailable as error:
            log.info("%s", error.line)
            self._board.daemon(ServerState.LOADING, message=error.line)
            self._retry_at = 0.0  # it did answer
            self.start()
            return None
        except Conflict as error:
            # A daemon of another version took its place: connecting anew replaces it, but not at every keystroke.
            self._fail(error.line)
            await self._drop()
            return None
        except PeftDaemonError as error:
            self._board.daemon(ServerState.ERROR, message=error.line)
            return None
        if response.finish_reason not in UNFINISHED:
            self._board.answered(response, 1000 * (time.monotonic() - began))
        return response

    async def go_on(self, request: CompleteRequest) -> CompleteResponse | None:
        """As ``complete``, for an answer that nobody waits for: the status shows nothing of it."""
        if self._client is None:
            return None
        try:
            return await self._ask(self._client, request)
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return None

    async def warm(self, request: CompleteRequest) -> bool:
        """Have the prompt of a request that is likely to come read, once the model is loaded; whether it was.

        The status shows nothing of it, and a daemon that cannot do it is left in peace.
        """
        if self._client is None or self._board.status.state is ServerState.LOADING:
            self.start()
            if self._watching is not None:
                await asyncio.wait((self._watching,))
        if self._client is None:
            return False
        try:
            return (await self._client.warm(request)).warm
        except PeftDaemonError as error:
            log.info("%s", error.line)
            return False

    async def record(self, feedback: FeedbackRequest) -> None:
        """Tell what became of a suggestion; where that cannot be told now, it is lost."""
        if self._client is None:
            return
        try:
            await self._client.record(feedback)
        except PeftDaemonError as error:
            log.info("feedback was lost: %s", error.line)

    async def context_changed(self, told: ContextChanged) -> None:
        """Tell what happened in a workspace; where that cannot be told now, the next telling has it."""
        if self._client is None:
            return
        try:
            await self._client.context_changed(told)
        except PeftDaemonError as error:
            log.info("not told of changes: %s", error.line)

    async def restart(self) -> None:
        """End the daemon and start a new one; returns when that one's model is loaded, or raises PeftDaemonError."""
        client = await self.client()
        self._board.daemon(ServerState.LOADING, message="restarting")
        try:
            await client.shutdown()
            status = await client.wait_ready(READY_TIMEOUT_S)
        except PeftDaemonError as error:
            self._fail(error.line)
            raise
        self._retry_at = 0.0
        self._board.daemon(ServerState.IDLE, model=status.model)

    async def close(self) -> None:
        """Let go of the daemon, which keeps running."""
        for task in (self._watching, self._connecting):
            if task is not None:
                task.cancel()
        self._watching = self._connecting = None
        self._asking.cancel()
        await self._drop()

    async def _ask(self, client: DaemonClient, request: CompleteRequest) -> CompleteResponse:
        asking = self._asking.spawn(client.complete(request))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(CANCEL_AFTER_S, asking.cancel)
            raise

    async def _drop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _open(self) -> DaemonClient:
        try:
            self._client = await self._connect()
            return self._client
        finally:
            self._connecting = None

    async def _watch(self) -> None:
        self._board.daemon(ServerState.LOADING)
        try:
            client = await self.client()
            while True:
                status = await client.status()
                if status.engine.state is EngineState.READY:
                    self._board.daemon(ServerState.IDLE, model=status.model)
                    return
                if status.engine.state in (EngineState.FAILED, EngineState.STOPPED):
                    why = ". ".join(part for part in (status.engine.last_error, status.engine.fix) if part)
                    self._fail(why or "the engine does not run", status.model)
                    return
                self._board.daemon(ServerState.LOADING, model=status.model)
                await asyncio.sleep(POLL_S)
        except PeftDaemonError as error:
            self._fail(error.line)
        except Exception as error:  # whatever it was, the status must not say "loading" for ever
            log.exception("the daemon cannot be reached")
            self._fail(f"the daemon cannot be reached: {error}")

    def _fail(self, message: str, model: str | None = None) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        self._board.daemon(ServerState.ERROR, model=model, message=message)
