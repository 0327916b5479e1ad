"""Stopping: requests finish or get a clear error, nothing is left behind, and a hung daemon does not stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest
from filelock import FileLock
from tiny_home import TinyHome, exit_code

from peft_cli.installation import check_daemon
from peft_core.files import require_private_folder
from peft_core.process_identity import ProcessIdentity
from peft_core.settings import Settings
from peft_daemon.client import CompleteRequest, Unavailable
from peft_daemon.lifecycle.installations import serves
from peft_daemon.lifecycle.locks import find_lock_holder
from peft_daemon.lifecycle.runtime_info import find_running_daemon, info_file
from peft_daemon.lifecycle.stop import StopResult, end_orphans, remove_stale_files, stop_daemon
from support.waiting import until

LEFT_BY_ALL = {"daemon.lock", "starter.lock"}


def left(tiny: TinyHome) -> set[str]:
    return {path.name for path in tiny.paths.runtime.iterdir()} - LEFT_BY_ALL


async def test_a_daemon_that_was_spawned_a_moment_ago_and_holds_nothing_yet_is_ended_too(tiny: TinyHome) -> None:
    daemon = tiny.spawn()
    stopped = await stop_daemon(tiny.paths)
    assert stopped.pid == daemon.pid
    await exit_code(daemon)
    assert await stop_daemon(tiny.paths) == StopResult(how="not running")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
async def test_promise_13_a_signal_lets_requests_finish(tiny: TinyHome, number: signal.Signals) -> None:
    daemon = tiny.spawn()
    await tiny.serving()
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = asyncio.create_task(client.complete(CompleteRequest(prefix="abc", intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        daemon.send_signal(number)
        await until(lambda: not info_file(tiny.paths).exists(), "the end of the info file")
        assert daemon.poll() is None, "the info file goes first, the process last"
        gate.touch()
        assert (await request).text == "abc"
    assert await exit_code(daemon) == 0
    assert left(tiny) == set()


async def test_promise_13_a_request_that_does_not_finish_gets_a_clear_error(tiny: TinyHome) -> None:
    daemon = tiny.spawn("--drain-s", "1")
    await tiny.serving()
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = asyncio.create_task(client.complete(CompleteRequest(intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        daemon.terminate()
        with pytest.raises(Unavailable, match="the daemon is stopping"):
            await request
    assert await exit_code(daemon) == 0


async def test_promise_13_a_stream_that_does_not_finish_ends_with_an_error_event(tiny: TinyHome) -> None:
    daemon = tiny.spawn("--drain-s", "1")
    await tiny.serving()
    gate = tiny.root / "gate"
    texts = []
    async with await tiny.connect() as client:
        stream = client.stream(CompleteRequest(prefix="abc", intent=f"stuck {gate}"))
        with pytest.raises(Unavailable, match="the daemon is stopping"):
            async with contextlib.aclosing(stream):
                async for event in stream:
                    texts.append(event.text)
                    daemon.terminate()
    assert texts == ["abc"]
    assert await exit_code(daemon) == 0


async def test_promise_13_the_route_stops_it_as_well(tiny: TinyHome) -> None:
    daemon = tiny.spawn()
    info = await tiny.serving()
    reader, writer = await asyncio.open_unix_connection(str(info.socket_path))
    writer.write(b"POST /v1/shutdown HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    assert await exit_code(daemon) == 0
    assert left(tiny) == set()


async def test_promise_13_an_engine_that_does_not_stop_cannot_keep_the_daemon(tiny: TinyHome) -> None:
    daemon = tiny.spawn("--hang-at-exit", "--drain-s", "1")
    await tiny.serving()
    daemon.terminate()
    assert await exit_code(daemon) == 0
    assert left(tiny) == set()


async def test_promise_14_stop_ends_the_daemon_and_leaves_nothing(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    stopped = await stop_daemon(tiny.paths)
    assert (stopped.how, stopped.pid) == ("graceful", info.pid)
    assert info.process.find() is None
    assert left(tiny) == set()
    assert await stop_daemon(tiny.paths) == StopResult(how="not running")


async def test_promise_14_stop_waits_for_a_killed_daemon_that_has_not_let_go_of_its_lock(tiny: TinyHome) -> None:
    """The kernel lets go of a process's files after it has reported its death."""
    holding = FileLock(require_private_folder(tiny.paths.runtime) / "daemon.lock", thread_local=False)
    holding.acquire()
    stopping = asyncio.create_task(stop_daemon(tiny.paths))
    assert not await asyncio.to_thread(remove_stale_files, tiny.paths, timeout_s=0.3), "who waits less has given up"
    assert not stopping.done()
    holding.release()
    assert await stopping == StopResult(how="not running")


async def test_promise_14_stop_kills_a_hung_daemon_with_its_engine(tiny: TinyHome) -> None:
    info = await tiny.ensure("--engine")
    [engine] = tiny.notes("engine")
    os.kill(info.pid, signal.SIGSTOP)
    stopped = await stop_daemon(tiny.paths, timeout_s=0.2)
    assert (stopped.how, stopped.pid) == ("killed", info.pid)
    await until(
        lambda: not psutil.pid_exists(engine) or psutil.Process(engine).status() == psutil.STATUS_ZOMBIE,
        "the end of the engine",
    )
    assert left(tiny) == set()


async def test_promise_14_stop_ends_a_daemon_that_does_not_serve_yet(tiny: TinyHome) -> None:
    daemon = tiny.spawn("--hold", str(tiny.root / "never"))
    await until(lambda: find_lock_holder(tiny.paths), "a daemon that holds the lock")
    stopped = await stop_daemon(tiny.paths, timeout_s=1)
    assert stopped.pid == daemon.pid
    assert left(tiny) == set()


async def test_promise_14_stop_works_when_the_info_file_cannot_be_trusted(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    info_file(tiny.paths).chmod(0o644)
    assert (await stop_daemon(tiny.paths)).pid == info.pid
    assert left(tiny) == set()


async def test_promise_10_stop_does_not_end_a_process_that_got_the_pid(tiny: TinyHome) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tiny.paths.runtime.mkdir(parents=True, mode=0o700)
    record = tiny.paths.runtime / "holder.json"
    record.write_bytes(msgspec.json.encode(ProcessIdentity(bystander.pid, 0.0)))
    record.chmod(0o600)
    assert (await stop_daemon(tiny.paths)).how == "not running"
    assert bystander.poll() is None
    assert left(tiny) == set()


async def test_promise_15_an_unused_daemon_leaves(tiny: TinyHome) -> None:
    daemon = tiny.spawn(idle_exit_s=1)
    await tiny.serving()
    assert await exit_code(daemon) == 0
    assert left(tiny) == set()


async def test_promise_15_a_request_in_flight_keeps_it(tiny: TinyHome) -> None:
    daemon = tiny.spawn(idle_exit_s=1)
    info = await tiny.serving()
    gate = tiny.root / "gate"
    async with await tiny.connect(idle_exit_s=1) as client:
        request = asyncio.create_task(client.complete(CompleteRequest(prefix="abc", intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        unused = TinyHome(tiny.root / "unused")
        unused.root.mkdir()
        later = unused.spawn(idle_exit_s=1)
        assert await exit_code(later) == 0
        assert daemon.poll() is None, "its idle time is over as well, but it is not idle"
        gate.touch()
        assert (await request).text == "abc"
        assert client.info == info
    assert await exit_code(daemon) == 0


async def test_promise_16_a_daemon_nobody_can_find_leaves(tiny: TinyHome) -> None:
    daemon = tiny.spawn()
    await tiny.serving()
    shutil.rmtree(tiny.paths.runtime)
    assert await exit_code(daemon) == 0


async def test_a_daemon_draining_is_waited_for_by_the_next_starter(tiny: TinyHome) -> None:
    old = tiny.spawn()
    await tiny.serving()
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = asyncio.create_task(client.complete(CompleteRequest(prefix="abc", intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        old.terminate()
        await until(lambda: find_running_daemon(tiny.paths) is None, "a daemon that cannot be found any more")
        next_one = asyncio.create_task(tiny.ensure())
        gate.touch()
        assert (await request).text == "abc"
        info = await next_one
    assert info.pid != old.pid
    assert serves(info, Settings())
    assert await exit_code(old) == 0


async def killed(tiny: TinyHome) -> psutil.Process:
    """What a daemon that was killed has left running."""
    daemon = tiny.spawn("--engine")
    await tiny.serving()
    (pid,) = tiny.notes("engine")
    engine = psutil.Process(pid)
    daemon.kill()
    await exit_code(daemon)
    assert engine.is_running()
    return engine


async def test_promise_28_stop_ends_what_a_killed_daemon_left_running(tiny: TinyHome) -> None:
    engine = await killed(tiny)
    assert await stop_daemon(tiny.paths) == StopResult(how="not running", orphans=1)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert await stop_daemon(tiny.paths) == StopResult(how="not running")


async def test_promise_28_doctor_ends_it_and_says_so(tiny: TinyHome) -> None:
    engine = await killed(tiny)
    assert "ended 1 process of an earlier daemon" in check_daemon(tiny.paths)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert "ended" not in check_daemon(tiny.paths)


async def test_promise_28_the_next_daemon_ends_what_a_killed_one_left_running(tiny: TinyHome) -> None:
    engine = await killed(tiny)
    await tiny.ensure()
    await until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, "the end of the engine")


async def test_promise_28_the_engine_of_a_living_daemon_or_of_another_home_is_left_alone(tiny: TinyHome) -> None:
    daemon = tiny.spawn("--engine")
    await tiny.serving()
    (pid,) = tiny.notes("engine")
    assert end_orphans(tiny.paths) == 0
    daemon.kill()
    await exit_code(daemon)
    assert end_orphans(replace(tiny.paths, runtime=tiny.root / "other")) == 0
    assert psutil.Process(pid).is_running()
    assert end_orphans(tiny.paths) == 1
