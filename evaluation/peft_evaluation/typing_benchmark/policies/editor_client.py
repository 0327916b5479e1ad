"""The benchmark's language client: it starts a language server of its own, and cancels requests like an editor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.io_ import run_async
from pygls.lsp.client import LanguageClient

from peft_core.code.positions import Encoding, to_column, to_offset
from peft_core.errors import EngineFailed
from peft_core.processes import start_async

STOP_S = 5.0
MAX_MESSAGE_BYTES = 1 << 24
NOTIFICATIONS = ("peft-daemon/status", "peft-daemon/more")


class EditorClient(LanguageClient):
    """A language server and the connection to it.

    ``settings`` is the answer to ``workspace/configuration``; ``on_notification`` gets the server's own notifications.
    """

    def __init__(self, settings: Mapping[str, Any], on_notification: Callable[[str, Any], None]) -> None:
        super().__init__("peft-daemon-bench", "1")
        self._ids = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ended = threading.Event()

        def configuration(params: types.ConfigurationParams) -> list[Any]:
            return [dict(settings) for _ in params.items]

        def create_progress(params: types.WorkDoneProgressCreateParams) -> None:
            """Accept; progress is not displayed."""

        self.feature(types.WORKSPACE_CONFIGURATION)(configuration)

        def report_progress(params: types.ProgressParams) -> None:
            """Ignore; progress is not displayed."""

        self.feature(types.WINDOW_WORK_DONE_PROGRESS_CREATE)(create_progress)
        self.feature(types.PROGRESS)(report_progress)
        for method in NOTIFICATIONS:
            self.feature(method)(lambda params, method=method: on_notification(method, params))

    @property
    def pid(self) -> int | None:
        """The server's process id."""
        return None if self._process is None else self._process.pid

    async def start(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        """Start the server; its standard error goes to ``log``."""
        with log.open("ab") as errors:
            self._process = await start_async(
                command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_MESSAGE_BYTES,
                environ={**os.environ, **environ},
                start_new_session=sys.platform != "win32",
            )
        assert self._process.stdin is not None  # noqa: S101  (a pipe, as requested above)
        self.protocol.set_writer(self._process.stdin)
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    def notify(self, method: str, params: Any) -> None:
        """Send a notification that the protocol does not define."""
        self.protocol.notify(method, params)

    async def request(self, method: str, params: Any) -> Any:
        """Send a request and return its result; if the call is cancelled, send ``$/cancelRequest``.

        Raises EngineFailed if the server answers with an error or has ended.
        """
        if self._process is None or self._reader is None or self._reader.done():
            raise EngineFailed("the language server is not running", fix="See its log in the benchmark's folder")
        number = next(self._ids)
        answer = self.protocol.send_request_async(method, params, msg_id=number)
        try:
            done, _ = await asyncio.wait((answer, self._reader), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.cancel_request(types.CancelParams(id=number))
            # The server answers a cancelled request with an error; reading it here avoids a warning.
            answer.add_done_callback(lambda each: each.cancelled() or each.exception())
            raise
        if answer not in done:
            raise EngineFailed("the language server ended", fix="Run `peft-daemon doctor`")
        try:
            return answer.result()
        except JsonRpcException as error:
            raise EngineFailed("the language server refused", why=error.message) from error

    async def end(self) -> None:
        """Shut the server down; kill it if it does not end in time."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(EngineFailed, TimeoutError):
                await asyncio.wait_for(self.request(types.SHUTDOWN, None), STOP_S)
                self.exit(None)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._ended.set()
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, stream: Any) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await run_async(self._ended, stream, self.protocol)


def lsp_position(text: str, offset: int) -> types.Position:
    """Return the protocol's position (line, UTF-16 column) of an offset in characters."""
    begin = text.rfind("\n", 0, offset) + 1
    column = to_column(text[begin:offset], offset - begin, Encoding.UTF16)
    return types.Position(line=text.count("\n", 0, offset), character=column)


def lsp_range(text: str, start: int, end: int) -> types.Range:
    """Return the protocol's range between two offsets."""
    return types.Range(start=lsp_position(text, start), end=lsp_position(text, end))


def offset_of(text: str, position: types.Position) -> int:
    """Return the offset of a position; for one outside of the text, the nearest offset in it."""
    lines = text.split("\n")
    if position.line >= len(lines):
        return len(text)
    begin = sum(len(line) + 1 for line in lines[: position.line])
    return begin + to_offset(lines[position.line], position.character, Encoding.UTF16)
