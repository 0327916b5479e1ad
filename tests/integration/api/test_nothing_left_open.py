"""However requests end, what they used is given back: descriptors, tasks, connections to the engine, places, slots."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from peft_core.api_types import FinishReason
from peft_daemon.client import CompleteRequest, DaemonClient, FinalEvent
from support.played_llama import PlayedLlama
from support.served import DaemonHere, daemon_here, open_descriptors
from support.waiting import until, until_answer

COMPLETIONS, CANCELLED, SUPERSEDED = 500, 200, 50
AT_ONCE = 4


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DaemonHere]:
    async with daemon_here(PlayedLlama(tmp_path, (), slots=2), monkeypatch) as serving:
        yield serving


@dataclass(frozen=True)
class Held:
    """What this process holds while nobody asks for anything."""

    descriptors: int
    tasks: int
    engine_connections: int


def held(daemon: DaemonHere) -> Held:
    return Held(open_descriptors(), len(asyncio.all_tasks()), daemon.llama.connections)


async def all_over(daemon: DaemonHere, client: DaemonClient) -> None:
    """Wait until nothing is worked on, and let go of connections that are kept for the next request."""
    await until_answer(
        client.status, lambda now: not (now.active_requests or now.queued_requests), "the end of all requests"
    )
    daemon.server.connections.close_unused()
    client.close_unused()
    servers = (daemon.api, daemon.llama)
    await until(
        lambda: not any(server.connections or server.server_state.tasks for server in servers),
        "the end of all connections",
    )


def request(number: int, document: str | None = None) -> CompleteRequest:
    return CompleteRequest(
        prefix=f"x{number} = ", suffix="\n", max_tokens=1 + number % 3, language="python", document=document
    )


async def complete(client: DaemonClient, asked: CompleteRequest, *, streamed: bool) -> FinishReason:
    if not streamed:
        return (await client.complete(asked)).finish_reason
    async with contextlib.aclosing(client.stream(asked)) as events:
        async for event in events:
            if isinstance(event, FinalEvent):
                return event.response.finish_reason
    raise AssertionError("a stream ends with its final event")


async def cancelled(client: DaemonClient, asked: CompleteRequest, moment: int, *, streamed: bool, twice: bool) -> None:
    task = asyncio.create_task(complete(client, asked, streamed=streamed))
    for _ in range(moment):
        await asyncio.sleep(0)
    for _ in range(1 + twice):
        task.cancel()
        await asyncio.sleep(0)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def superseded(client: DaemonClient, number: int, moment: int) -> FinishReason:
    """The end of a request whose document is asked for again, or of the other if that arrived first."""
    document = f"document {number}"
    older = asyncio.create_task(complete(client, request(number, document), streamed=number % 2 == 0))
    for _ in range(moment):
        await asyncio.sleep(0)
    newer = await complete(client, request(COMPLETIONS + number, document), streamed=False)
    ends = await older, newer
    assert ends.count(FinishReason.SUPERSEDED) < 2, "nobody has the document's newest"
    return max(ends, key=lambda end: end is FinishReason.SUPERSEDED)


async def test_completions_that_end_cancelled_or_superseded_leave_everything_as_it_was(daemon: DaemonHere) -> None:
    chance = random.Random(18)
    kinds = ["plain"] * (COMPLETIONS - CANCELLED - SUPERSEDED) + ["cancelled"] * CANCELLED + ["superseded"] * SUPERSEDED
    chance.shuffle(kinds)
    ends: Counter[FinishReason] = Counter()
    async with await DaemonClient.connect(paths=daemon.paths, start=False) as client:
        await asyncio.gather(*(complete(client, request(1000 + n), streamed=False) for n in range(2 * AT_ONCE)))
        await all_over(daemon, client)
        before = held(daemon)
        todo = list(enumerate(kinds))

        async def work() -> None:
            while todo:
                number, kind = todo.pop()
                moment, streamed = int(chance.expovariate(1 / 60)), chance.random() < 0.5
                if kind == "plain":
                    ends[await complete(client, request(number), streamed=streamed)] += 1
                elif kind == "superseded":
                    ends[await superseded(client, number, moment)] += 1
                else:
                    twice = chance.random() < 0.3
                    await cancelled(client, request(number), moment, streamed=streamed, twice=twice)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        await all_over(daemon, client)
        # Preparing what follows begins a moment after a suggestion.
        await until(lambda: held(daemon) == before, f"no more than {before}")
        assert len(daemon.server.slots.free) == 2
        assert ends[FinishReason.SUPERSEDED] > SUPERSEDED // 4, "the newer one came too late each time"
        await complete(client, request(0), streamed=True)
    assert sum(ends.values()) == COMPLETIONS - CANCELLED


async def test_metrics_tell_what_the_daemon_holds(daemon: DaemonHere) -> None:
    async with await DaemonClient.connect(paths=daemon.paths, start=False) as client:
        await complete(client, request(0), streamed=False)
    transport = httpx.AsyncHTTPTransport(uds=daemon.socket)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        text = (await http.get("/metrics")).text
        descriptors = open_descriptors()
    told = dict(re.findall(r"^peft_daemon_(tasks|threads|descriptors) (\S+)$", text, re.MULTILINE))
    assert float(told["descriptors"]) == descriptors
    assert float(told["tasks"]) > 1
    assert float(told["threads"]) >= 1
