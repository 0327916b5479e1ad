"""A long day in minutes: editors and other clients use a real daemon with the real model, and nothing of it stays.

Each engine serves for ``PEFT_DAEMON_SOAK_S`` seconds (1800). A third of that is warming up, after which memory,
descriptors, threads and tasks of the daemon, its engine and a language server are measured; at the end they are
measured again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from lsprotocol import types

from peft_core.http_client import MAX_IDLE_CONNECTIONS
from peft_core.paths import Paths
from peft_core.status_types import LLAMACPP, TORCH
from peft_daemon.client import CompleteRequest, DaemonClient, PeftDaemonError
from support.editor import Editor, editor
from support.running_daemon import RunningDaemon, run_cli, start_daemon

SOAK_S = float(os.environ.get("PEFT_DAEMON_SOAK_S", "1800"))
WARM_UP = 1 / 3
CLIENTS = 32
"""Of the daemon, each with connections of its own; a language server and clients that hang up come on top."""
OTHER_ADAPTER = 0.002
"""Share of requests that name an adapter. Another one is another engine in llama.cpp: now and then, as people do it."""
MAX_GROWTH = 1.05
"""Of the memory of a process."""
KEPT = {"daemon": 0, "engine": 0, "editor": MAX_IDLE_CONNECTIONS}
"""Descriptors of connections that a process may keep for its next requests."""
MOST_CLIENTS = 1 + (CLIENTS + 2) * MAX_IDLE_CONNECTIONS
POOL = {"daemon": 4, "engine": 0, "editor": 4}
"""Threads that an event loop's pool, which grows up to its size, may gain."""
ADAPTERS = ("base", "code-fim", "conala")
SOURCES = sorted(Path(__file__).parents[2].glob("daemon/peft_daemon/*.py"))

pytestmark = [pytest.mark.long, pytest.mark.timeout(SOAK_S + 900)]


@pytest.fixture(params=[LLAMACPP, pytest.param(TORCH, marks=pytest.mark.torch)])
def daemon(
    request: pytest.FixtureRequest, model_file: Path, models_dir: Path, tmp_path: Path
) -> Iterator[RunningDaemon]:
    """A daemon with the adapters of the package, of which the engine holds one at a time."""
    home = tmp_path / "h"
    environment = {
        "PEFT_DAEMON_HOME": str(home),
        "PEFT_DAEMON_ENGINE": request.param,
        "PEFT_DAEMON_MODELS_DIR": str(models_dir),
        "PEFT_DAEMON_MAX_LOADED_ADAPTERS": "1",
    }
    yield start_daemon(home, environment)
    run_cli("stop", environment=environment)


@dataclass(frozen=True)
class Use:
    """What a process uses; the connections that its clients keep for their next requests apart."""

    memory: int
    descriptors: int
    clients: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Use:
        process = psutil.Process(pid)
        clients = sum(bool(each.laddr) for each in process.net_connections("unix"))
        return cls(process.memory_info().rss, process.num_fds() - clients, clients, process.num_threads())


class Typist:
    """One client that types into a document of its own, and changes its mind."""

    def __init__(self, client: DaemonClient, number: int, done: Counter[str]) -> None:
        self._client, self._done = client, done
        self._random = random.Random(number)
        self._document = f"file:///soak/{number}.py"
        self._number = number

    async def type_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            text = self._random.choice(SOURCES).read_text()
            place = self._random.randrange(len(text) // 2)
            for _ in range(self._random.randrange(20, 60)):
                if over.is_set():
                    return
                place += self._random.choice((1, 1, 1, 2, 8))
                await self._key(text[:place], text[place : place + 2000])

    async def _key(self, prefix: str, suffix: str) -> None:
        kind = self._random.choices(
            ("complete", "cancelled", "superseded", "dropped", "warm", "other"), (6, 4, 4, 2, 2, 2)
        )[0]
        request = CompleteRequest(
            prefix=prefix[-4000:],
            suffix=suffix,
            path=f"/soak/{self._number}.py",
            language="python",
            document=self._document if kind != "other" else None,
            automatic=self._random.random() < 0.7,
            max_tokens=self._random.choice((1, 4, 12)),
            show_after_ms=self._random.choice((None, 50)),
            adapter=self._random.choice(ADAPTERS) if self._random.random() < OTHER_ADAPTER else None,
        )
        try:
            await getattr(self, f"_{kind}")(request)
            self._done[kind] += 1
        except PeftDaemonError as error:
            self._done[error.code] += 1

    async def _complete(self, request: CompleteRequest) -> None:
        await self._client.complete(request)

    _other = _complete

    async def _cancelled(self, request: CompleteRequest) -> None:
        await self._cut_short(self._client.complete(request))

    async def _superseded(self, request: CompleteRequest) -> None:
        older = asyncio.create_task(self._client.complete(request))
        await asyncio.wait((older,), timeout=self._random.uniform(0, 0.3))
        newer = self._client.complete(CompleteRequest(prefix=request.prefix + "a", document=self._document))
        await asyncio.gather(older, newer)

    async def _dropped(self, request: CompleteRequest) -> None:
        async with contextlib.aclosing(self._client.stream(request)) as events:
            await anext(events)

    async def _warm(self, request: CompleteRequest) -> None:
        await self._cut_short(self._client.warm(request))

    async def _cut_short(self, work: Awaitable[object]) -> None:
        asking = asyncio.ensure_future(work)
        await asyncio.wait((asking,), timeout=self._random.expovariate(5))
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def edit_until(over: asyncio.Event, one: Editor, done: Counter[str]) -> None:
    """Type in a real language server's editor, with requests that are cancelled by the next key."""
    chance = random.Random(0)
    uri, lines = "file:///soak/editor.py", SOURCES[0].read_text().split("\n")
    one.open(uri, "")
    row = 0
    while not over.is_set():
        line = lines[row % len(lines)]
        for column in range(len(line)):
            if over.is_set():
                break
            one.edit(uri, (row, column), (row, column), line[column])
            params = one.inline_params(uri, row, column + 1, automatic=True)
            identity = f"key {row} {column}"
            method = types.TEXT_DOCUMENT_INLINE_COMPLETION
            asking = asyncio.create_task(one.client.protocol.send_request_async(method, params, msg_id=identity))
            await asyncio.wait((asking,), timeout=chance.expovariate(4))
            if not asking.done():
                one.client.cancel_request(types.CancelParams(identity))
            await asyncio.gather(asking, return_exceptions=True)
            done["editor"] += 1
        one.edit(uri, (row, len(line)), (row, len(line)), "\n")
        row += 1


async def hang_up_until(over: asyncio.Event, socket: str, done: Counter[str]) -> None:
    """Clients that break off anywhere."""
    chance = random.Random(1)
    body = b'{"prompt": "def add(a, b):", "max_tokens": 8, "stream": true}'
    whole = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    while not over.is_set():
        _, writer = await asyncio.open_unix_connection(socket)
        writer.write(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        await asyncio.sleep(chance.expovariate(4))
        writer.transport.abort()
        done["hung up"] += 1
        await asyncio.sleep(chance.expovariate(0.5))


async def test_hours_of_use_leave_memory_descriptors_threads_and_tasks_as_they_were(daemon: RunningDaemon) -> None:
    done: Counter[str] = Counter()
    paths = Paths.from_environment(daemon.environment)
    async with editor(daemon.environment) as one, contextlib.AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(await DaemonClient.connect(paths=paths, start=False))
            for _ in range(CLIENTS)
        ]
        client = clients[0]
        await one.ready()

        async def use(seconds: float) -> None:
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, over.set)
            await asyncio.gather(
                *(Typist(each, number, done).type_until(over) for number, each in enumerate(clients)),
                edit_until(over, one, done),
                hang_up_until(over, daemon.address.removeprefix("unix:"), done),
            )

        async def measured() -> dict[str, Use]:
            await settled(client)
            # Memory that a process has never touched is not counted: prompts as long as they may be, in both slots.
            text = "".join(path.read_text() for path in SOURCES)
            longest = [
                CompleteRequest(
                    prefix=text[start : start + 12_000], adapter="base", max_tokens=1, time_budget_ms=300_000
                )
                for start in (0, 12_000)
            ]
            await asyncio.gather(*map(client.complete, longest))
            # Unused connections to the engine are closed with the first request after they are too old.
            await asyncio.sleep(5)
            await client.complete(CompleteRequest(prefix="x = ", adapter="base", max_tokens=1))
            await settled(client)
            engine = (await client.status()).engine.pid
            assert engine is not None
            return {"daemon": Use.of(daemon.pid), "engine": Use.of(engine), "editor": Use.of(one.process.pid)}

        await use(SOAK_S * WARM_UP)
        before, tasks_before = await measured(), daemon.metric("peft_daemon_tasks")[""]
        await use(SOAK_S * (1 - WARM_UP))
        after, tasks_after = await measured(), daemon.metric("peft_daemon_tasks")[""]
    print(f"\n{sum(done.values()):,} requests: {dict(done)}\ntasks {tasks_before:.0f} → {tasks_after:.0f}")
    for name, was in before.items():
        now = after[name]
        print(
            f"{name}: {was.memory / 1e6:.1f} → {now.memory / 1e6:.1f} MB, "
            f"{was.descriptors} → {now.descriptors} descriptors, {was.clients} → {now.clients} connections of clients, "
            f"{was.threads} → {now.threads} threads"
        )
    assert tasks_after <= tasks_before
    for name, was in before.items():
        now = after[name]
        assert now.memory <= was.memory * MAX_GROWTH, f"memory of the {name}"
        assert now.descriptors <= was.descriptors + KEPT[name], f"descriptors of the {name}"
        assert now.clients <= MOST_CLIENTS, f"connections to the {name}"
        assert now.threads <= was.threads + POOL[name], f"threads of the {name}"
    assert "Traceback" not in paths.log_file.read_text()


async def settled(client: DaemonClient) -> None:
    """Wait until nothing is worked on, and nothing is about to be."""
    quiet = 0
    while quiet < 10:
        status = await client.status()
        quiet = 0 if status.active_requests or status.queued_requests else quiet + 1
        await asyncio.sleep(0.1)
