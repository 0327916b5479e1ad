"""The real engine: however completions end, the daemon holds as many descriptors and tasks as before."""

from __future__ import annotations

import asyncio
import contextlib
import random

import psutil
import pytest

from peft_core.paths import Paths
from peft_daemon.client import CompleteRequest, DaemonClient
from support.running_daemon import RunningDaemon
from support.waiting import until, until_answer

pytestmark = pytest.mark.model


async def test_completions_that_end_or_are_cancelled_leave_the_daemon_as_it_was(daemon: RunningDaemon) -> None:
    chance = random.Random(11)
    process = psutil.Process(daemon.pid)

    def held() -> tuple[int, int]:
        return process.num_fds(), int(daemon.metric("peft_daemon_tasks")[""])

    async with await DaemonClient.connect(paths=Paths.from_environment(daemon.environment), start=False) as client:

        async def ask(number: int, *, moment_s: float | None = None) -> None:
            request = CompleteRequest(prefix=f"x{number} = ", suffix="\n", max_tokens=1, language="python")
            asking = asyncio.create_task(client.complete(request))
            if moment_s is not None:
                await asyncio.wait((asking,), timeout=moment_s)
                asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

        async def over() -> None:
            await until_answer(
                client.status, lambda now: not (now.active_requests or now.queued_requests), "the end of all requests"
            )

        await asyncio.gather(ask(0), ask(1), ask(2))
        await over()
        before = held()
        for number in range(10, 50):
            await ask(number, moment_s=chance.uniform(0, 0.2) if number % 2 else None)
        await over()
        await until(lambda: held() <= before, f"no more than {before} descriptors and tasks")
