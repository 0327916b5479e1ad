"""The client's view of the wire: event streams in any pieces, errors of any kind, and a cheap import."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.http_client import ConnectionTimeout, event_data
from peft_daemon import client

LINES_BREAK_HERE = "\u2028\u2029\x85\x0b\x0c\x1c\r\n"


async def pieces(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        yield data[begin:end]


@given(
    st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from(LINES_BREAK_HERE), max_size=30), max_size=8),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
async def test_events_are_the_same_however_the_stream_is_cut(texts: list[str], cuts: list[int], end: bytes) -> None:
    stream = b": a comment" + end + b"".join(b"data: " + msgspec.json.encode(text) + end for text in texts)
    events = [msgspec.json.decode(data) async for data in event_data(pieces(stream, cuts))]
    assert events == texts


async def test_an_answer_that_comes_while_a_probe_fails_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.01)
    probed, answered = asyncio.Event(), asyncio.Event()

    class SlowPool:
        @asynccontextmanager
        async def send(self, *_: object, **__: object) -> AsyncIterator[None]:
            probed.set()
            await answered.wait()
            raise ConnectionTimeout
            yield

    async def work() -> str:
        await probed.wait()
        answered.set()
        return "answer"

    pool: Any = SlowPool()
    answer = client.DaemonAnswer(pool, asyncio.get_running_loop().time() + 60.0)
    assert await answer.wait(work()) == "answer"


def test_importing_the_client_loads_nothing_heavy() -> None:
    script = "import sys, peft_daemon.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "httpx",
        "anyio",
        "psutil",
        "filelock",
        "uvicorn",
        "starlette",
        "typer",
        "rich",
        "numpy",
        "torch",
        "xllamacpp",
    }
    assert not heavy & set(loaded)


def test_importing_the_server_loads_neither_model_nor_command_line() -> None:
    script = "import sys, peft_daemon.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "typer", "rich", "numpy", "torch", "xllamacpp", "gguf", "transformers"} & set(loaded)
