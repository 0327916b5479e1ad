"""Engines that are killed, stopped and aborted under load: every request is answered rightly or refused clearly."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from peft_daemon.engines import heartbeat, supervisor
from peft_daemon.engines.heartbeat import HeartbeatLimits
from support.served_gguf import ServedGguf, served_gguf
from support.synthetic_adapter import lora, write_peft
from support.waiting import until_answer

SECONDS = float(os.environ.get("PEFT_DAEMON_SOAK_S", "120"))
CLIENTS = 5
LONGEST_S = 30.0
"""Of any request: its limit, and what a loaded machine adds."""
MODELS = ("tiny", "a1", "a20", "a50")

pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS + 300)]


class Load:
    """Clients that ask for all models at random, and what became of their requests."""

    def __init__(self, served: ServedGguf, expected: dict[str, str], random_: random.Random) -> None:
        self.served, self.expected, self.random = served, expected, random_
        self.outcomes: Counter[object] = Counter()
        self.slowest_s = 0.0

    async def client(self, until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            await self.random.choice((self.ask, self.complete, self.give_up))(self.random.choice(MODELS))
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    async def ask(self, model: str) -> None:
        answer = await self.served.raw(model)
        if answer.status_code == 200:
            assert answer.json()["choices"][0]["text"] == self.expected[model]
        self.outcomes[answer.status_code] += 1

    async def complete(self, model: str) -> None:
        budget = self.random.choice(({}, {"time_budget_ms": 50}, {"time_budget_ms": 3000}))
        adapter = {"adapter": "base" if model == "tiny" else model}
        answer = await self.served.complete(**budget, **adapter, stream=self.random.random() < 0.3)
        self.outcomes[answer.status_code] += 1

    async def give_up(self, model: str) -> None:
        asked = asyncio.create_task(self.served.raw(model))
        await asyncio.sleep(self.random.uniform(0, 0.3))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def engines() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]


async def test_faults_of_the_engine_are_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", HeartbeatLimits(quiet_s=0.2, ping_s=0.4))
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.05, 0.2, 0.3))
    random_ = random.Random(46)
    faults: Counter[str] = Counter()
    async with served_gguf(tmp_path, slots=2, max_loaded_adapters=1, request_limit_s=20) as served:
        for seed in (1, 20, 50):
            folder = write_peft(tmp_path / f"peft{seed}", lora(seed=seed))
            served.registry.import_(folder, name=f"a{seed}", base=served.base)
        expected = {model: (await served.raw(model)).json()["choices"][0]["text"] for model in MODELS}
        load = Load(served, expected, random_)
        until = time.monotonic() + SECONDS
        clients = asyncio.gather(*(load.client(until) for _ in range(CLIENTS)))
        while not clients.done():
            await asyncio.sleep(random_.uniform(0.2, 2.5))
            living = engines()
            assert len(living) <= supervisor.MAX_PROCESSES
            number = random_.choice((signal.SIGSTOP, signal.SIGKILL, signal.SIGABRT))
            with suppress(psutil.NoSuchProcess, IndexError):
                random_.choice(living).send_signal(number)
                faults[number.name] += 1
        await clients
        print(dict(faults), dict(load.outcomes), f"slowest {load.slowest_s:.1f} s")
        assert set(load.outcomes) <= {200, 502, 503}
        assert load.slowest_s < LONGEST_S
        for model in MODELS:
            answer = await until_answer(
                partial(served.raw, model), lambda answer: answer.status_code == 200, f"an answer of {model}"
            )
            assert answer.json()["choices"][0]["text"] == expected[model]
        assert len(engines()) == 1
    assert engines() == []
