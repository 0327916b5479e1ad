"""Many processes that need the daemon at the same moment, whatever the last one left: one daemon, and all are answered.

``PEFT_DAEMON_STARTER_ROUNDS`` is how often the long test has twenty of them start (50).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import psutil
import pytest
import starter
from processes_of_home import daemons
from tiny_home import TinyHome

from peft_core.files import private_folder
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import Settings
from peft_daemon.lifecycle.failed_starts import reset_backoff
from peft_daemon.lifecycle.locks import find_lock_holder, holder_file
from peft_daemon.lifecycle.runtime_info import DaemonInfo, find_running_daemon, info_file, publish_info
from peft_daemon.lifecycle.stop import stop_daemon
from support.waiting import until

ROUNDS = int(os.environ.get("PEFT_DAEMON_STARTER_ROUNDS", "50"))
SEED = int(os.environ.get("PEFT_DAEMON_SEED", "1"))

Situation = Callable[[TinyHome], Awaitable[None]]


async def nothing(tiny: TinyHome) -> None:
    """There is no daemon and nothing of one."""
    await stop_daemon(tiny.paths)


async def one_that_serves(tiny: TinyHome) -> None:
    await tiny.ensure()


async def one_with_other_settings(tiny: TinyHome) -> None:
    await tiny.ensure(context_tokens=2048)


async def one_of_another_version(tiny: TinyHome) -> None:
    await stop_daemon(tiny.paths)
    await tiny.ensure_pretending("0.0.1")


async def killed(tiny: TinyHome) -> None:
    """Its info file, its socket and the record of its lock are still there."""
    info = await tiny.ensure()
    await tiny.kill(info)


async def about_to_leave(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    psutil.Process(info.pid).terminate()


async def about_to_serve(tiny: TinyHome) -> None:
    """Somebody started one by hand a moment ago."""
    await stop_daemon(tiny.paths)
    tiny.spawn()


async def without_its_socket(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    assert info.socket_path is not None
    info.socket_path.unlink()


async def pid_of_another(tiny: TinyHome) -> None:
    """The info file and the lock's record name a process that got the pid of a daemon that is gone."""
    await stop_daemon(tiny.paths)
    foreign = ProcessIdentity(os.getppid(), 0.0)
    stale = DaemonInfo(
        pid=foreign.pid,
        created=foreign.created,
        address=f"unix:{tiny.paths.runtime / 'd-00000000.sock'}",
        version="0.1.0",
        protocol=1,
        config_digest=Settings().digest(),
        started=time.time() - 3600,
        folder=str(tiny.paths.runtime),
    )
    publish_info(tiny.paths, stale)
    holder_file(tiny.paths).write_bytes(msgspec.json.encode(foreign))
    holder_file(tiny.paths).chmod(0o600)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tiny.paths.runtime / "d-00000000.sock"))


async def garbage(tiny: TinyHome) -> None:
    """All files of the runtime folder have bytes that mean nothing."""
    await stop_daemon(tiny.paths)
    private_folder(tiny.paths.runtime)
    for file in (info_file(tiny.paths), holder_file(tiny.paths), *tiny.paths.runtime.glob("*.lock")):
        file.write_bytes(b"\x00{]\xff")
        file.chmod(0o600)


SITUATIONS: tuple[Situation, ...] = (
    nothing,
    one_that_serves,
    one_with_other_settings,
    one_of_another_version,
    killed,
    about_to_leave,
    about_to_serve,
    without_its_socket,
    pid_of_another,
    garbage,
)


class Starters:
    """Processes that start at the same moment."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def ask(self, text: str) -> list[tuple[int, str]]:
        """Have all of them ask; of each the daemon that answered and what it said."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{text}\n".encode())
        lines = await asyncio.gather(*(_line(process) for process in self._processes))
        return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def starters(tiny: TinyHome, count: int) -> AsyncIterator[Starters]:
    folders = [Path(__file__).parent, Path(__file__).parents[2], os.environ.get("PYTHONPATH")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(each) for each in folders if each)}
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, starter.__file__, str(tiny.root)),
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    try:
        await asyncio.gather(*map(_line, processes))
        yield Starters(processes)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _is_alone(tiny: TinyHome, pid: int) -> bool:
    return daemons(tiny.paths) == {pid}


async def start_again_and_again(tiny: TinyHome, count: int, situations: Sequence[Situation]) -> None:
    came = 0
    async with starters(tiny, count) as all_of_them:
        for number, situation in enumerate(situations):
            reset_backoff(tiny.paths)
            await situation(tiny)
            leaving = daemons(tiny.paths) if situation is about_to_leave else set()
            before = tiny.notes("starting")
            answers = await all_of_them.ask(f"round {number}")
            told = f"{situation.__name__}: {answers}"
            assert {text for _, text in answers} == {f"round {number}"}, told
            if not (new := {pid for pid, _ in answers} - leaving):
                continue  # the one that was about to leave has answered all of them
            (pid,) = new
            info, holder = find_running_daemon(tiny.paths), find_lock_holder(tiny.paths)
            assert info is not None and holder is not None, told
            assert info.pid == holder.pid == pid, told
            # One that was started by hand and came too late may be about to end.
            await until(partial(_is_alone, tiny, pid), f"the end of all others, {told}")
            fresh = [each for each in tiny.notes("starting") if each not in before]
            assert fresh in ([pid], []), told
            came += len(fresh)
    print(f"{len(situations)} rounds of {count} starters, {came} daemons, each alone")


async def test_promise_01_starters_get_one_daemon_whatever_the_last_one_left(tiny: TinyHome) -> None:
    await start_again_and_again(tiny, 4, (garbage, one_with_other_settings, about_to_leave, about_to_serve))


@pytest.mark.long
@pytest.mark.timeout(30 * ROUNDS + 300)
async def test_promise_01_twenty_starters_at_once_get_one_daemon_every_time(tiny: TinyHome) -> None:
    chance = random.Random(SEED)
    await start_again_and_again(tiny, 20, [*SITUATIONS, *chance.choices(SITUATIONS, k=ROUNDS)][:ROUNDS])
