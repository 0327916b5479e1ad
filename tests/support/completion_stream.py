"""The stream of one job, from an engine that answers nothing else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from peft_core.settings import Settings
from peft_daemon.completion.job import CompletionJob, Limits
from peft_daemon.completion.scheduler import Deadlines, Scheduler
from peft_daemon.completion.stream import Completer, Completion, StreamStats
from peft_daemon.engines.base import Engine


def completer(engine: Engine) -> Completer:
    """A completer of its own."""
    return Completer(engine, Scheduler(1), Limits(Settings()), lambda _: None)


def no_deadlines() -> Deadlines:
    """All the time in the world."""
    return Deadlines(asyncio.get_running_loop().time())


async def streamed(engine: Engine, job: CompletionJob) -> tuple[list[str], Completion]:
    """All parts, and the end."""
    parts: list[str] = []
    own = completer(engine)
    try:
        async with aclosing(own.run(job, StreamStats(), no_deadlines())) as items:
            async for item in items:
                if isinstance(item, Completion):
                    return parts, item
                parts.append(item)
    finally:
        await own.close()
    raise AssertionError("the stream ended without a completion")
