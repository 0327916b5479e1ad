"""A machine that sleeps, whose clock is set, or whose disk is full: the daemon goes on, and nothing is damaged."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from processes_of_home import daemons

from peft_core.api_types import BASE, FeedbackRequest, LearningAction, LearningRequest, Outcome, Task, UseAdapterRequest
from peft_core.errors import PeftDaemonError, Unavailable
from peft_daemon.client import DaemonClient
from support import moved_clock
from support.tiny_service import TinyService, ask, tiny_service

LONGER_THAN_PINGS_S = 40.0
"""Seven missed pings are 24.5 s, and a client gives a silent daemon 15 s."""
DAYS_S = 86_400.0
PAUSE = LearningRequest(action=LearningAction.PAUSE, repository="/", seconds=3600)


def feedback(offer: str) -> FeedbackRequest:
    return FeedbackRequest(
        offer=offer, outcome=Outcome.ACCEPTED, language="python", suggestion="x", shown=1, accepted=1, model="tiny"
    )


def family(pid: int) -> list[psutil.Process]:
    daemon = psutil.Process(pid)
    return [daemon, *daemon.children(recursive=True)]


async def sleep_and_wake(service: TinyService, seconds: float) -> None:
    """Stop the daemon and all its children as a machine that sleeps does, with requests under way."""
    async with await service.ready() as client:
        before, expected = await client.status(), (await client.complete(ask())).text
        stopped = family(client.info.pid)
        # The daemon last, so that its engine certainly has work.
        for each in stopped[1:]:
            each.send_signal(signal.SIGSTOP)
        waiting = [asyncio.create_task(client.complete(ask(prefix=f"{'x' * 400}{n}\n"))) for n in range(4)]
        await asyncio.sleep(0.5)
        assert not any(each.done() for each in waiting)
        stopped[0].send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for each in stopped:
            each.send_signal(signal.SIGCONT)
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            # A client that did not sleep itself may have given up meanwhile, and says so.
            assert not isinstance(result, BaseException) or isinstance(result, Unavailable), result
        assert (await client.complete(ask())).text == expected
        after = await client.status()
        assert (after.pid, after.engine.pid, after.engine.restarts) == (before.pid, before.engine.pid, 0)
        assert daemons(service.paths) == {after.pid}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
async def test_promise_31_a_daemon_that_slept_goes_on_with_the_same_engine() -> None:
    async with tiny_service() as service:
        await sleep_and_wake(service, 3.6)  # longer than a ping that nobody answers


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
async def test_promise_31_the_same_after_a_sleep_longer_than_all_pings() -> None:
    async with tiny_service() as service:
        for _ in range(3):
            await sleep_and_wake(service, LONGER_THAN_PINGS_S)


async def test_promise_31_a_clock_that_is_set_forwards_and_back_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    folders = [str(Path(moved_clock.__path__[0])), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("MOVED_CLOCK", str(clock))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    async with tiny_service() as service:
        async with await service.ready() as client:
            pid, expected = client.info.pid, (await client.complete(ask())).text
            for number, days in enumerate((0, 400, -400, 0)):
                clock.write_text(str(days * DAYS_S))
                async with await DaemonClient.connect(service.settings, service.paths) as fresh:
                    assert fresh.info.pid == pid
                    assert (await fresh.complete(ask())).text == expected
                    assert await fresh.record(feedback(f"offer {number}"))
                    assert 0 <= (await fresh.status()).uptime_s < 3600
                    paused = await fresh.learn(PAUSE)
                    assert paused.paused
            clock.write_text(str(-400 * DAYS_S))
            assert not (await client.learning()).paused, "a pause of an hour is over before the hour it began in"
        psutil.Process(pid).kill()
        async with await service.ready() as client:
            assert client.info.pid != pid
            assert (await client.complete(ask())).text == expected
        assert len([*service.feedback.rows()]) == 4


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No process of a daemon can write a byte to a file, as on a full disk."""
    processes = family(pid)
    for each in processes:
        each.rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))
    try:
        yield
    finally:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


def run_on_full_disk(service: TinyService, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that cannot write a byte to a file."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    return subprocess.run(
        [sys.executable, "-m", "peft_daemon", *arguments],
        env=service.environ,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process can be set on Linux only")
async def test_promise_31_on_a_full_disk_the_daemon_answers_and_says_what_cannot_be_kept() -> None:
    async with tiny_service() as service:
        service.import_adapter(1, "a1")
        async with await service.ready() as client:
            expected = (await client.complete(ask("a1"))).text
            assert await client.record(feedback("before"))
            with full_disk(client.info.pid):
                assert (await client.complete(ask("a1"))).text == expected
                for refused in (
                    client.record(feedback("lost")),
                    client.use_adapter(UseAdapterRequest(name="a1", task=Task.FILL)),
                    client.learn(PAUSE),
                ):
                    with pytest.raises(PeftDaemonError) as caught:
                        await refused
                    assert caught.value.status >= 400, caught.value
                    assert "disk" in caught.value.fix or "space" in caught.value.fix, caught.value
                assert (await client.complete(ask("a1"))).text == expected
            assert await client.record(feedback("after"))
            await client.use_adapter(UseAdapterRequest(name="a1", task=Task.FILL))
            assert [row.record.offer for row in service.feedback.rows()] == ["before", "after"]
            chosen = service.registry.resolve(Task.FILL)
            assert chosen is not None
            assert chosen.name == "a1"
            assert not list(service.paths.data.rglob("*.tmp"))
            assert "Traceback" not in service.paths.log_file.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
async def test_promise_31_on_a_full_disk_commands_say_so_in_one_line_and_leave_all_as_it_was() -> None:
    async with tiny_service() as service:
        service.import_adapter(1, "a1")
        before = {path: path.read_bytes() for path in service.paths.data.rglob("*") if path.is_file()}
        for arguments in (
            ("start", "--no-wait"),
            ("adapters", "use", "a1"),
            ("adapters", "import", str(service.peft(20)), "--name", "a20"),
        ):
            done = run_on_full_disk(service, *arguments)
            assert done.returncode, arguments
            lines = done.stderr.splitlines()
            assert [line[:13] for line in lines if line] == ["peft-daemon: "], (arguments, done.stderr)
        after = {path: path.read_bytes() for path in service.paths.data.rglob("*") if path.is_file()}
        assert {path: content for path, content in after.items() if content} == {
            path: content for path, content in before.items() if content
        }
        async with await service.ready() as client:
            assert (await client.complete(ask("a1"))).adapter is not None
            assert service.registry.resolve(Task.FILL, requested=BASE) is None
