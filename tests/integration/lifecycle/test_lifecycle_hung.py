"""A daemon that hangs, against a client that waits: an error that says what to type, and no false alarm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from tiny_home import TinyHome

from peft_core.api_types import DeltaEvent
from peft_daemon import client as client_module
from peft_daemon.client import CompleteRequest, Unavailable
from support.waiting import until


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the client ask soon whether the daemon is there."""
    monkeypatch.setattr(client_module, "SILENCE_S", 0.1)
    monkeypatch.setattr(client_module, "PROBE_S", 0.3)


async def test_promise_25_a_client_of_a_hung_daemon_is_told_what_to_type(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    async with await tiny.connect() as client:
        os.kill(info.pid, signal.SIGSTOP)
        for asking in (client.complete(CompleteRequest(prefix="a")), client.warm(CompleteRequest(prefix="a"))):
            with pytest.raises(Unavailable, match="peft-daemon stop") as caught:
                await asking
            assert "does not answer" in caught.value.what
            assert "health" in caught.value.why
        os.kill(info.pid, signal.SIGCONT)
        assert (await client.complete(CompleteRequest(prefix="abc"))).text == "abc"


async def test_promise_25_a_stream_that_stops_because_the_daemon_hangs_ends_in_an_error(tiny: TinyHome) -> None:
    info = await tiny.ensure()
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        stream = client.stream(CompleteRequest(prefix="abc", intent=f"stuck {gate}"))
        async with contextlib.aclosing(stream):
            assert await anext(stream) == DeltaEvent("abc")
            os.kill(info.pid, signal.SIGSTOP)
            with pytest.raises(Unavailable, match="peft-daemon stop"):
                await anext(stream)
        os.kill(info.pid, signal.SIGCONT)


async def test_promise_25_a_daemon_that_works_for_long_is_waited_for(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PROBE_S", 60.0)
    await tiny.ensure()
    gate = tiny.root / "gate"
    probes = 0
    probe = client_module.DaemonAnswer.probe

    async def counted(self: object, limit_s: float) -> None:
        nonlocal probes
        await probe(self, limit_s)  # type: ignore[arg-type]
        probes += 1

    monkeypatch.setattr(client_module.DaemonAnswer, "probe", counted)
    async with await tiny.connect() as client:
        asked = asyncio.create_task(client.complete(CompleteRequest(prefix="abc", intent=f"until {gate}")))
        await until(Path(f"{gate}.began").exists, "the request, in the daemon")
        await until(lambda: probes >= 3, "the third probe")
        assert not asked.done()
        gate.touch()
        assert (await asked).text == "abc"


async def test_promise_25_no_request_waits_for_longer_than_its_budget_allows(
    tiny: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "GRACE_S", 0.2)
    await tiny.ensure()
    gate = tiny.root / "gate"
    async with await tiny.connect() as client:
        request = CompleteRequest(intent=f"until {gate}", time_budget_ms=200)
        with pytest.raises(Unavailable, match="does not answer"):
            await client.complete(request)
        gate.touch()
