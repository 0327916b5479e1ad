"""Engines that are killed, aborted, stopped and starved of memory while clients use the daemon, and what came of it.

Every fault hits a living process of the engine: the one that serves, one that loads an adapter, or one that ends. After
each the daemon must serve again, and the next request must be answered rightly.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec
import psutil

from peft_core.api_types import BASE, CompleteResponse, ErrorEvent, FinalEvent, StreamEvent
from peft_core.http_client import MAX_IDLE_CONNECTIONS
from peft_core.status_types import DaemonStatus, EngineState
from support.telling_adapters import ALPHABETS, write_telling_adapter
from support.tiny_serving import LONGEST_REQUEST_S, TinyServing
from support.waiting import until, until_answer

CLIENTS = 16
ADAPTERS = ("small", "capital")
PROMPTS = ("def f(x):", "class A:", "import os", "x = [1, 2]", "for each in them:", "return")
CODE = "def {}(x):\n    return "
BUDGETS_MS = (None, 50, 3000)
DEFAULT_BUDGET_S = 30.0
"""Of a completion that names none."""
GRACE_S = 20.0
"""What a loaded machine may add to a request's time."""
PROMPT_S = 3.0
"""What the next request may take on a machine that is not loaded."""
RECOVERY_LIMIT_S = 180.0
"""For an engine that starts on a loaded machine; the figures say what it takes."""
STARVED_S = 2.0
"""How long an engine gets no more memory, if it does not die of that."""
STARVED_BYTES = 1 << 20
FAULTS = ("kill", "abort", "stop", "memory")
SIGNALS = {"kill": signal.SIGKILL, "abort": signal.SIGABRT, "stop": signal.SIGSTOP}


@dataclass
class FaultReport:
    """What was injected, what became of the requests, and how long recovery took, in seconds."""

    faults: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    """Faults that the engine's process lived through."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of requests, by kind and status."""
    errors: Counter[str] = field(default_factory=Counter)
    """What requests were told, by the beginning of what happened."""
    wrong: list[str] = field(default_factory=list)
    latest_s: float = 0.0
    """The most that a request took beyond its time."""
    noticed_s: list[float] = field(default_factory=list)
    """From a fault until its process was gone."""
    back_s: list[float] = field(default_factory=list)
    """From a fault until the daemon said that its engine is ready."""
    next_s: list[float] = field(default_factory=list)
    """From then until the next request was answered."""

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    def text(self) -> str:
        """All of it in a few lines."""
        rows = (("noticed", self.noticed_s), ("back", self.back_s), ("next request", self.next_s))
        times = ", ".join(
            f"{name} after {median(each):.2f} s, at most {max(each):.2f} s" for name, each in rows if each
        )
        late = sum(each > PROMPT_S for each in self.next_s)
        return (
            f"{self.faults.total()} faults {dict(self.faults)}, {self.survived} survived\n"
            f"{self.requests:,} requests {dict(sorted(self.outcomes.items()))}, errors {dict(self.errors)}\n"
            f"{times}; {late} of {len(self.next_s)} next requests took more than {PROMPT_S:.0f} s; "
            f"the latest request took {self.latest_s:.1f} s beyond its time"
        )


@dataclass(frozen=True)
class Held:
    """What the daemon holds while nothing is asked."""

    descriptors: int
    tasks: float
    threads: int
    memory: int


class EngineFaults:
    """The clients of one daemon, and what hits its engine meanwhile."""

    def __init__(self, serving: TinyServing, folder: Path, seed: int, kinds: Sequence[str] = FAULTS) -> None:
        self.report = FaultReport()
        self._serving, self._random, self._kinds = serving, random.Random(seed), kinds
        for name in ADAPTERS:
            peft = write_telling_adapter(folder / name, serving.model, name)
            serving.registry.import_(peft, name=name, base=serving.base)
        self._alone: dict[tuple[str, str], str] = {}
        self._over = asyncio.Event()

    async def run(self, rounds: int) -> tuple[Held, Held]:
        """Inject so many faults; returns what the daemon held before and after."""
        async with self._serving.client() as client:
            for model in ("tiny", *ADAPTERS):
                for prompt in PROMPTS:
                    answer = await client.post("/v1/completions", json=_raw(model, prompt))
                    self._alone[model, prompt] = answer.json()["choices"][0]["text"]
            before = await self._held(client)
            asking = asyncio.gather(*(self._ask(number) for number in range(CLIENTS)))
            try:
                for number in range(rounds):
                    await asyncio.sleep(self._random.uniform(0.0, 0.6))
                    await self._fault(client, self._kinds[number % len(self._kinds)])
            finally:
                self._over.set()
                await asking
            return before, await self._held(client)

    # The faults.

    async def _fault(self, client: httpx.AsyncClient, kind: str) -> None:
        """Hit an engine, and wait until the next request is answered."""
        target = self._random.choice(await until(self._serving.engines, "an engine"))
        began = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            if kind == "memory":
                await self._starve(target)
            else:
                target.send_signal(SIGNALS[kind])
        self.report.faults[kind] += 1
        if kind != "memory":
            await self._gone(target)
            self.report.noticed_s.append(time.monotonic() - began)
        elif target not in self._serving.engines():
            await self._gone(target)
        else:
            self.report.survived += 1
        await until_answer(lambda: self._serving.status(client), _serves, "an engine", limit_s=RECOVERY_LIMIT_S)
        ready = time.monotonic()
        self.report.back_s.append(ready - began)
        prompt = self._random.choice(PROMPTS)

        async def ask() -> httpx.Response:
            return await client.post("/v1/completions", json=_raw("tiny", prompt))

        # A loaded machine may need more than a request's time to begin, and says so.
        answer = await until_answer(
            ask, lambda answer: answer.status_code != 503, "an answer", limit_s=RECOVERY_LIMIT_S
        )
        self.report.next_s.append(time.monotonic() - ready)
        if answer.status_code != 200:
            self.report.wrong.append(f"after {kind}: {answer.status_code} {answer.text}")
        elif answer.json()["choices"][0]["text"] != self._alone["tiny", prompt]:
            self.report.wrong.append(f"after {kind}: {answer.text}")

    async def _gone(self, target: psutil.Process) -> None:
        """Wait until a process is gone, and no dead one is left to be waited for."""
        await until(lambda: not target.is_running(), f"the end of {target}", limit_s=RECOVERY_LIMIT_S)

    async def _starve(self, target: psutil.Process) -> None:
        """Let a process take no more memory for a while, unless it dies of that."""
        limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        before: dict[int, tuple[int, int]] = {}
        with contextlib.suppress(ProcessLookupError):
            for each in limits:
                before[each] = resource.prlimit(target.pid, each)
                resource.prlimit(target.pid, each, (STARVED_BYTES, before[each][1]))
        until_s = time.monotonic() + STARVED_S
        while time.monotonic() < until_s and target in self._serving.engines():
            await asyncio.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            for each, limit in before.items():
                resource.prlimit(target.pid, each, limit)

    # The clients.

    async def _ask(self, number: int) -> None:
        chance = random.Random(number)
        kinds: Sequence[Callable[[httpx.AsyncClient, random.Random], Awaitable[str]]] = (
            self._completions,
            self._complete,
            self._stream,
            self._warm,
            self._give_up,
        )
        async with self._serving.client() as client:
            while not self._over.is_set():
                self.report.outcomes[await chance.choice(kinds)(client, chance)] += 1

    async def _completions(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        model, prompt = chance.choice(("tiny", "tiny", *ADAPTERS)), chance.choice(PROMPTS)
        answer = await self._post(client, "/v1/completions", _raw(model, prompt), LONGEST_REQUEST_S)
        if answer.status_code == 200 and answer.json()["choices"][0]["text"] != self._alone[model, prompt]:
            self.report.wrong.append(f"{model} answered {answer.text} to {prompt!r}")
        return f"completions {answer.status_code}"

    async def _complete(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body, limit_s = _fill(chance)
        answer = await self._post(client, "/v1/complete", body, limit_s)
        if answer.status_code == 200:
            self._judge(body, msgspec.json.decode(answer.content, type=CompleteResponse))
        return f"complete {answer.status_code}"

    async def _stream(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body, limit_s = _fill(chance)
        answer = await self._post(client, "/v1/complete", {**body, "stream": True}, limit_s)
        if answer.status_code != 200:
            return f"stream {answer.status_code}"
        last = answer.text.strip().rsplit("\n\n", 1)[-1]
        event: StreamEvent = msgspec.json.decode(last.removeprefix("data: "), type=StreamEvent)  # type: ignore[arg-type]
        if isinstance(event, FinalEvent):
            self._judge(body, event.response)
            return "stream 200"
        if isinstance(event, ErrorEvent):
            self.report.errors[event.error.what[:60]] += 1
        if not isinstance(event, ErrorEvent) or not event.error.fix:
            self.report.wrong.append(f"a stream ended with {event}")
        return "stream with an error at its end"

    async def _warm(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body, _ = _fill(chance)
        body = {**body, "document": f"file:///{chance.randrange(8)}.py"} | {"time_budget_ms": None}
        return f"warm {(await self._post(client, '/v1/warm', body, LONGEST_REQUEST_S)).status_code}"

    async def _give_up(self, client: httpx.AsyncClient, chance: random.Random) -> str:
        body, _ = _fill(chance)
        asking = asyncio.create_task(client.post("/v1/complete", json=body))
        await asyncio.wait((asking,), timeout=chance.uniform(0, 0.3))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return "given up"

    async def _post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any], limit_s: float) -> httpx.Response:
        """Ask, and judge everything but a right answer's text."""
        began = time.monotonic()
        answer = await client.post(path, json=body)
        beyond_s = time.monotonic() - began - limit_s
        self.report.latest_s = max(self.report.latest_s, beyond_s)
        if beyond_s > GRACE_S:
            self.report.wrong.append(f"{path} took {beyond_s:.1f} s beyond its {limit_s:.1f} s: {answer.text}")
        if answer.status_code != 200:
            error = answer.json()["error"]
            self.report.errors[error["what"][:60]] += 1
            if answer.status_code not in {502, 503} or not error["what"] or not error["fix"]:
                self.report.wrong.append(f"{path}: {answer.status_code} {error}")
        return answer

    def _judge(self, body: dict[str, Any], told: CompleteResponse) -> None:
        who = BASE if told.adapter is None else told.adapter.name
        if who != body["adapter"]:
            self.report.wrong.append(f"{body['adapter']} was named, and {who} answered")
        if who != BASE and not set(told.text) <= set(ALPHABETS[who]):
            self.report.wrong.append(f"{who} answered {told.text!r}")

    # What is left.

    async def _held(self, client: httpx.AsyncClient) -> Held:
        """Wait until nothing is worked on, and measure."""
        await until_answer(lambda: self._serving.status(client), _rests, "rest", limit_s=RECOVERY_LIMIT_S)
        await until(lambda: len(self._serving.children()) == 1, "a single engine", limit_s=RECOVERY_LIMIT_S)
        # As many at a time as there are slots, and more: a slot that leaked would not be there.
        answers = await asyncio.gather(*(client.post("/v1/completions", json=_raw("tiny", "x = ")) for _ in range(8)))
        assert {each.status_code for each in answers} == {200}
        await until_answer(lambda: self._serving.status(client), _rests, "rest")
        process = psutil.Process(self._serving.daemon.pid)
        connections = sum(bool(each.laddr) for each in process.net_connections("unix"))
        tasks = self._serving.daemon.metric("peft_daemon_tasks")[""]
        return Held(process.num_fds() - connections, tasks, process.num_threads(), process.memory_info().rss)

    def left_behind(self, before: Held, after: Held) -> list[str]:
        """What did not end with the engines that died."""
        left = []
        if after.descriptors > before.descriptors + MAX_IDLE_CONNECTIONS:
            left.append(f"descriptors: {before.descriptors} → {after.descriptors}")
        if after.tasks > before.tasks + 2:
            left.append(f"tasks: {before.tasks} → {after.tasks}")
        if len(sockets := self._serving.engine_sockets()) > 1:
            left.append(f"sockets: {sockets}")
        if "Traceback" in (log := self._serving.paths.log_file.read_text()):
            left.append(log[log.index("Traceback") :][:3000])
        return left


def _serves(status: DaemonStatus) -> bool:
    return status.engine.state is EngineState.READY and status.engine.responding


def _rests(status: DaemonStatus) -> bool:
    return _serves(status) and not status.active_requests and not status.queued_requests


def _raw(model: str, prompt: str) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0}


def _fill(chance: random.Random) -> tuple[dict[str, Any], float]:
    """A request for a completion, and the time that it has."""
    budget_ms = chance.choice(BUDGETS_MS)
    code = CODE.format(chance.choice("abcdefgh"))
    body = {"prefix": code, "suffix": "\n", "max_tokens": 12, "task": "fill", "time_budget_ms": budget_ms}
    adapter = chance.choice((BASE, BASE, *ADAPTERS))
    return {**body, "adapter": adapter}, DEFAULT_BUDGET_S if budget_ms is None else budget_ms / 1000
