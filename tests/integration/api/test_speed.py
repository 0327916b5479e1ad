"""What requests may cost follows from the engine's speed, which the next daemon knows; the model is played."""

from __future__ import annotations

from peft_core.api_types import CompleteRequest
from peft_core.status_types import DaemonStatus, ServingSpeed
from peft_daemon.client import DaemonClient
from support.played_daemon import Played, played_home


async def status(home: Played) -> DaemonStatus:
    async with await DaemonClient.connect(paths=home.paths, start=False) as client:
        return await client.status()


async def test_the_speed_is_told_with_what_follows_from_it_and_known_at_the_next_start() -> None:
    async with played_home() as home:
        before = await status(home)
        assert before.speed == ServingSpeed(0, 0)
        home.model.answers({"x = ": "1\n"})
        async with await DaemonClient.connect(paths=home.paths, start=False) as client:
            await client.complete(CompleteRequest(prefix="x = ", suffix="\n", path="a.py"))
        for _ in range(2):
            now = await status(home)
            assert now.speed == ServingSpeed(640, 200)
            limits = {each.name: each for each in now.limits}
            assert limits["step_tokens"].value == 64
            assert limits["step_tokens"].why == "64 are read in 0.1 s"
            assert limits["prompt_tokens"].why == "the least; 192 are read in 0.3 s"
            await home.restart()


async def test_a_limit_that_the_settings_fix_stays() -> None:
    async with played_home(PEFT_DAEMON_PROMPT_TOKENS="500", PEFT_DAEMON_CONTEXT_TOKENS="2048") as home:
        limits = {each.name: (each.value, each.why) for each in (await status(home)).limits}
    assert limits["prompt_tokens"] == (500, "`prompt_tokens` says so")
    assert limits["context_tokens"] == (2048, "`context_tokens` says so")
