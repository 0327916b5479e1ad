"""JSON-RPC over a child's standard streams, framed as the language server protocol has it; the client's side."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from peft_core.errors import EngineFailed
from peft_core.processes import start_async

STOP_S = 5.0
_LIMIT = 1 << 24


class JsonRpc:
    """One running child. ``asked`` answers its requests, ``told`` takes its notifications."""

    def __init__(self, asked: Callable[[str, Any], Any], told: Callable[[str, Any], None]) -> None:
        self._asked, self._told = asked, told
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return None if self._process is None else self._process.pid

    async def start(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        """Start the child; what it says besides goes to ``log``."""
        with log.open("ab") as errors:
            self._process = await start_async(
                command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=_LIMIT,
                environ={**os.environ, **environ},
                start_new_session=sys.platform != "win32",
            )
        self._reader = asyncio.create_task(self._read())

    def notify(self, method: str, params: Any) -> None:
        """Tell it something."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    async def request(self, method: str, params: Any) -> Any:
        """Ask it something; when this is cancelled, so is the request (``$/cancelRequest``).

        Raises EngineFailed when it answers with an error or ends.
        """
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            return await answer
        except asyncio.CancelledError:
            self.notify("$/cancelRequest", {"id": number})
            raise
        finally:
            self._waiting.pop(number, None)

    async def stop(self) -> None:
        """End the child in order, or by force when it does not end."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(EngineFailed, TimeoutError):
                await asyncio.wait_for(self.request("shutdown", None), STOP_S)
                self.notify("exit", None)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            self._reader.cancel()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None or self._process.returncode is not None:
            raise EngineFailed("the language server is not running", fix="See its log in the benchmark's folder")
        body = msgspec.json.encode(message)
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101  (it was started)
        stream = self._process.stdout
        try:
            while True:
                header = await stream.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in header.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                self._receive(msgspec.json.decode(await stream.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            gone = EngineFailed("the language server ended", fix="Run `peft-daemon doctor`")
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(gone)

    def _receive(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            answer = self._waiting.get(message["id"])
            if answer is None or answer.done():
                return
            if error := message.get("error"):
                answer.set_exception(EngineFailed("the language server refused", why=str(error.get("message", error))))
            else:
                answer.set_result(message.get("result"))
        elif "id" in message:
            result = self._asked(message["method"], message.get("params"))
            self._send({"jsonrpc": "2.0", "id": message["id"], "result": result})
        else:
            self._told(message["method"], message.get("params"))
