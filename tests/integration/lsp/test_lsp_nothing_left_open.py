"""However requests of an editor end, the language server gives back what they used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from functools import partial
from pathlib import Path

import psutil
import pytest
from lsprotocol import types

from peft_core.http_client import MAX_IDLE_CONNECTIONS
from peft_daemon.client import CompleteRequest, DaemonClient
from peft_lsp import daemon_connection as daemon_module
from peft_lsp.daemon_connection import DaemonConnection, ServerState, StatusBoard
from support.editor import editor
from support.played_daemon import Played
from support.played_llama import PlayedLlama
from support.served import daemon_here, open_descriptors
from support.waiting import until

POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
URI = "file:///project/demo.py"


async def test_completions_cancelled_at_any_moment_leave_descriptors_and_tasks_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "CANCEL_AFTER_S", 0.01)
    chance = random.Random(3)
    async with daemon_here(PlayedLlama(tmp_path, (), slots=2), monkeypatch) as here:
        board = StatusBoard(lambda _: None)
        daemon = DaemonConnection(board, partial(DaemonClient.connect, paths=here.paths, start=False))
        daemon.start()
        await until(lambda: board.status.state is ServerState.IDLE, "the model, for the language server")

        async def ask(number: int, document: str | None, moment: int | None) -> None:
            request = CompleteRequest(prefix=f"x{number} = ", suffix="\n", max_tokens=2, document=document)
            asking = asyncio.create_task(daemon.complete(request))
            if moment is not None:
                for _ in range(moment):
                    await asyncio.sleep(0)
                asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

        async def held() -> tuple[int, int]:
            client = await daemon.client()
            client.close_unused()
            here.server.connections.close_unused()
            await until(lambda: not (here.api.connections or here.llama.connections), "the end of all connections")
            return open_descriptors(), len(asyncio.all_tasks())

        await ask(0, None, None)
        before = await held()
        for number in range(1, 250):
            await ask(number, chance.choice([None, "a", "b"]), chance.choice([None, 1, 10, 100]))
        await until(lambda: len(asyncio.all_tasks()) <= before[1], f"no more than {before[1]} tasks")
        assert await held() == before
        await daemon.close()


async def test_typing_and_cancelling_leaves_the_process_as_it_was(played: Played) -> None:
    played.model.answers({"total = ": "sum(numbers)"})
    async with editor(played.environ) as one:
        await one.ready()
        one.open(URI, "total = \n")
        process = psutil.Process(one.process.pid)

        async def key(number: int, *, cancelled: bool) -> None:
            params = one.inline_params(URI, 0, 8, automatic=number % 2 == 0)
            identity = f"key {number}"
            method = types.TEXT_DOCUMENT_INLINE_COMPLETION
            asked = asyncio.create_task(one.client.protocol.send_request_async(method, params, msg_id=identity))
            await asyncio.sleep(0)
            if cancelled:
                one.client.cancel_request(types.CancelParams(identity))
            await asyncio.gather(asked, return_exceptions=True)

        for number in range(10):
            await key(number, cancelled=number % 2 == 0)
        await key(10, cancelled=False)
        before = process.num_fds(), process.num_threads()
        for number in range(100, 220):
            one.edit(URI, (0, 8), (0, 8), "s" if number % 2 else "")
            await key(number, cancelled=number % 3 != 0)
            if number % 2:
                one.edit(URI, (0, 8), (0, 9), "")
        await key(999, cancelled=False)
        now = process.num_fds(), process.num_threads()
        # Some connections are kept for the next key, and a pool of threads grows up to its size.
        assert now[0] <= before[0] + MAX_IDLE_CONNECTIONS, now
        assert now[1] <= before[1] + POOL_THREADS, now
