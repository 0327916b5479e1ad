"""The client: typed answers and errors, restarts it survives, cancellation the daemon sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from tiny_home import LIMIT_S, TinyHome

from peft_core.api_types import UseAdapterRequest
from peft_core.errors import Conflict, EngineFailed, NotFound
from peft_core.status_types import EngineState
from peft_daemon import client as client_module
from peft_daemon.client import CompleteRequest, DaemonClient, DeltaEvent, FinalEvent, Unavailable
from peft_daemon.lifecycle.runtime_info import find_running_daemon
from peft_daemon.lifecycle.stop import stop_daemon
from support.waiting import until

# Characters at which text libraries split lines, although JSON leaves them as they are.
ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\rg\nh€😀"


async def test_completions_arrive_whole_and_as_a_stream(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        assert (await client.complete(CompleteRequest(prefix=ODD))).text == ODD
        events = [event async for event in client.stream(CompleteRequest(prefix=ODD))]
    assert isinstance(events[0], DeltaEvent)
    assert isinstance(events[-1], FinalEvent)
    assert events[0].text == events[-1].response.text == ODD


async def test_errors_arrive_as_what_they_are(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        with pytest.raises(NotFound) as caught:
            await client.use_adapter(UseAdapterRequest(name="x"))
        assert (caught.value.what, caught.value.why, caught.value.fix) == ("no adapter 'x'", "w", "f")
        assert await client.adapters() == []


async def test_wait_ready_waits_for_the_model(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        assert (await client.status()).engine.state is EngineState.STARTING
        assert (await client.wait_ready(LIMIT_S)).engine.state is EngineState.READY


async def test_wait_ready_tells_why_the_model_will_not_come(tiny: TinyHome) -> None:
    async with await tiny.connect(model="broken") as client:
        with pytest.raises(EngineFailed) as caught:
            await client.wait_ready(LIMIT_S)
    assert (caught.value.why, caught.value.fix) == ("bad file", "Replace it")


async def test_without_start_a_missing_daemon_is_an_error_and_stays_missing(tiny: TinyHome) -> None:
    with pytest.raises(Unavailable, match="no daemon runs"):
        await DaemonClient.connect(paths=tiny.paths, start=False)
    assert not tiny.paths.runtime.exists()


async def test_without_start_any_settings_and_versions_will_do_but_not_any_protocol(tiny: TinyHome) -> None:
    info = await tiny.ensure(slots=2)
    async with await DaemonClient.connect(paths=tiny.paths, start=False) as client:
        assert (await client.status()).pid == info.pid
    await stop_daemon(tiny.paths)
    other = await tiny.ensure_pretending("0.0.1")
    async with await DaemonClient.connect(paths=tiny.paths, start=False) as client:
        assert (await client.status()).pid == other.pid
    await stop_daemon(tiny.paths)
    await tiny.ensure_pretending("9.9.9", "--pretend-protocol", "2")
    with pytest.raises(Conflict, match=r"9\.9\.9 and speaks another protocol"):
        await DaemonClient.connect(paths=tiny.paths, start=False)


async def test_a_settings_file_that_became_unreadable_hinders_nobody_whose_daemon_runs(tiny: TinyHome) -> None:
    await tiny.ensure()
    tiny.paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    tiny.paths.config_file.write_text("no such = setting")
    async with await DaemonClient.connect(paths=tiny.paths, start=False) as client:
        assert (await client.complete(CompleteRequest(prefix="x"))).text == "x"


@pytest.mark.parametrize("listen", ["unix", "tcp"])
async def test_promise_17_a_client_survives_a_killed_daemon(tiny: TinyHome, listen: str) -> None:
    async with await tiny.connect(listen=listen) as client:
        first = client.info
        await client.complete(CompleteRequest(prefix="one"))
        psutil.Process(first.pid).kill()
        assert (await client.complete(CompleteRequest(prefix="two"))).text == "two"
        assert client.info.pid != first.pid
        await stop_daemon(tiny.paths)
        events = [event async for event in client.stream(CompleteRequest(prefix="three"))]
        assert isinstance(events[0], DeltaEvent)


async def test_promise_17_many_requests_at_once_start_one_new_daemon(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        await stop_daemon(tiny.paths)
        texts = [str(number) for number in range(10)]
        answers = await asyncio.gather(*(client.complete(CompleteRequest(prefix=text)) for text in texts))
    assert [answer.text for answer in answers] == texts
    assert len(tiny.notes("begin")) == 2


async def test_promise_17_a_request_cut_in_flight_is_sent_once_more(tiny: TinyHome) -> None:
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = asyncio.create_task(client.complete(CompleteRequest(prefix="abc", intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        psutil.Process(client.info.pid).kill()
        gate.touch()
        assert (await request).text == "abc"


async def test_promise_17_a_reconnecting_client_does_not_fight_for_its_settings(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        other = await tiny.ensure(slots=2)
        with pytest.raises(Conflict, match="restarted with other settings"):
            await client.complete(CompleteRequest())
        assert find_running_daemon(tiny.paths) == other


async def test_promise_17_settings_from_the_users_file_are_read_again(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PEFT_DAEMON_SLOTS", raising=False)
    tiny.paths.config.mkdir(parents=True)
    async with await DaemonClient.connect(paths=tiny.paths, command=tiny.command()) as client:
        tiny.paths.config_file.write_text("slots = 2\n")
        other = await DaemonClient.connect(paths=tiny.paths, command=tiny.command())
        await other.aclose()
        await client.complete(CompleteRequest())
        assert client.info == other.info


async def test_promise_17_a_stream_cut_in_the_middle_is_not_repeated(tiny: TinyHome) -> None:
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        stream = client.stream(CompleteRequest(prefix="abc", intent=f"stuck {gate}"))
        async with contextlib.aclosing(stream):
            assert await anext(stream) == DeltaEvent("abc")
            psutil.Process(client.info.pid).kill()
            with pytest.raises(Unavailable, match="in the middle of an answer"):
                await anext(stream)


async def test_promise_17_after_a_shutdown_the_next_request_starts_a_new_daemon(tiny: TinyHome) -> None:
    async with await tiny.connect() as client:
        old = client.info
        await client.shutdown()
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"
        assert client.info.pid != old.pid
        assert old.process.find() is None


async def test_promise_17_nothing_is_left_open_to_a_daemon_that_went_away(tiny: TinyHome) -> None:
    async def ask(client: DaemonClient) -> None:
        await asyncio.gather(*(client.complete(CompleteRequest(prefix="abc")) for _ in range(4)))

    async with await tiny.connect() as client:
        await ask(client)
        before = psutil.Process().num_fds()
        for _ in range(2):
            await client.shutdown()
            await ask(client)
        assert psutil.Process().num_fds() <= before


async def test_promise_18_cancelling_hangs_up_and_the_daemon_notices(tiny: TinyHome) -> None:
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = asyncio.create_task(client.complete(CompleteRequest(intent=f"forever {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        request.cancel()
        await until(Path(f"{gate}.gone").exists, "the daemon's notice that the client has gone")
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await client.complete(CompleteRequest(prefix="next"))).text == "next"


async def test_promise_18_closing_a_stream_hangs_up(tiny: TinyHome) -> None:
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        stream = client.stream(CompleteRequest(prefix="abc", intent=f"stuck {gate}"))
        await anext(stream)
        connected = len(psutil.Process(client.info.pid).net_connections("unix"))
        await stream.aclose()
        process = psutil.Process(client.info.pid)
        await until(lambda: len(process.net_connections("unix")) < connected, "the end of the connection")


async def test_a_hung_daemon_is_an_error_not_a_silence(tiny: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_S", 0.1)
    monkeypatch.setattr(client_module, "PROBE_S", 0.1)
    async with await tiny.connect() as client:
        os.kill(client.info.pid, signal.SIGSTOP)
        with pytest.raises(Unavailable, match="does not answer"):
            await client.status()
        os.kill(client.info.pid, signal.SIGCONT)
        await client.status()
