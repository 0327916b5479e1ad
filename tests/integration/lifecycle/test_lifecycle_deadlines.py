"""Every request ends in time, in an answer or a clear error, whatever the engine does: here a signal has stopped it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_core.status_types import EngineState
from peft_daemon.engines import heartbeat, supervisor
from peft_daemon.engines.heartbeat import HeartbeatLimits
from support.served_gguf import ServedGguf, served_gguf
from support.waiting import until

LIMIT_S = 60.0
NEVER = HeartbeatLimits(quiet_s=1000.0)
SOON = HeartbeatLimits(quiet_s=0.1, ping_s=0.2)
CODE = "def f(x):\n    return "
COMPLETE = {"prefix": CODE, "suffix": "\n", "task": "fill", "max_tokens": 6}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "complete of text that was seen": ("/v1/complete", COMPLETE),
    "complete of text that nobody has seen": ("/v1/complete", {**COMPLETE, "prefix": "y = 7\n" + CODE}),
    "complete as a stream": ("/v1/complete", {**COMPLETE, "stream": True}),
    "complete from a sentence": ("/v1/complete", {"intent": "add two numbers", "task": "intent"}),
    "complete of typing": ("/v1/complete", {**COMPLETE, "document": "d", "automatic": True, "show_after_ms": 50}),
    "warm": ("/v1/warm", {**COMPLETE, "document": "d"}),
    "completions": ("/v1/completions", {"model": "tiny", "prompt": CODE}),
    "completions with a suffix": ("/v1/completions", {"model": "tiny", "prompt": CODE, "suffix": "\n"}),
    "completions as a stream": ("/v1/completions", {"model": "tiny", "prompt": CODE, "stream": True}),
    "infill": ("/infill", {"input_prefix": CODE, "input_suffix": "\n"}),
    "infill as a stream": ("/infill", {"input_prefix": CODE, "input_suffix": "\n", "stream": True}),
}


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedGguf]:
    """One that notices a hang at once."""
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", SOON)
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.05,))
    async with served_gguf(tmp_path) as one:
        yield one


async def stopped_engine(served: ServedGguf) -> psutil.Process:
    """Have a signal stop the engine."""
    pid = (await served.status()).engine.pid
    assert pid is not None
    process = psutil.Process(pid)
    process.suspend()
    # On a busy machine the signal takes a moment.
    await until(lambda: process.status() == psutil.STATUS_STOPPED, "the engine's stop")
    return process


async def test_promise_24_every_request_ends_in_its_time_though_nobody_notices_that_the_engine_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", NEVER)
    async with served_gguf(tmp_path, request_limit_s=1) as served:
        await served.complete()  # its text is tokenized already
        process = await stopped_engine(served)
        async with asyncio.timeout(LIMIT_S):
            answers = await asyncio.gather(
                *(served.client.post(path, json=_hasty(path, body)) for path, body in REQUESTS.values())
            )
        for name, response in zip(REQUESTS, answers, strict=True):
            if name == "warm":
                assert response.json()["warm"] is False, "completions go first"
                continue
            assert response.status_code == 503, f"{name}: {response.text}"
            error = response.json()["error"]
            assert "not answered within" in error["what"], name
            assert "not responding" in error["why"], name
            assert error["fix"], name
        status = await served.status()
        assert (status.queued_requests, status.engine.responding) == (0, False)
        process.resume()
        await served.until(lambda now: now.active_requests == 0)
        assert (await served.complete()).status_code == 200


def _hasty(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "time_budget_ms": 700} if path.startswith("/v1/complete") and path != "/v1/completions" else body


@pytest.mark.parametrize("name", REQUESTS)
async def test_promise_27_a_request_that_meets_a_hung_engine_is_answered_by_the_next_one(
    served: ServedGguf, name: str
) -> None:
    path, body = REQUESTS[name]
    await stopped_engine(served)
    async with asyncio.timeout(LIMIT_S):
        response = await served.client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert (await served.status()).engine.restarts == 1


async def test_promise_27_health_and_status_tell_of_a_hung_engine_and_of_its_end(
    served: ServedGguf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (1.0,))
    expected = (await served.raw()).json()["choices"][0]["text"]
    await stopped_engine(served)
    health = await served.client.get("/health")
    assert health.status_code == 503
    assert "does not answer" in health.json()["error"]["message"]
    asked = asyncio.create_task(served.raw())
    hung = await served.until(lambda status: status.engine.state is EngineState.RESTARTING)
    assert "hung" in hung.engine.last_error
    assert "hung" in (await served.client.get("/health")).json()["error"]["message"]
    assert (await asked).json()["choices"][0]["text"] == expected
    assert (await served.client.get("/health")).status_code == 200


async def test_promise_24_a_budget_counts_the_wait_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "DEFAULT_LIMITS", NEVER)
    async with served_gguf(tmp_path) as served:
        process = await stopped_engine(served)
        first = asyncio.create_task(served.raw())
        await served.until(lambda status: status.active_requests == 1)
        body = {**COMPLETE, "prefix": "z = 9\n" + CODE, "time_budget_ms": 300}
        async with asyncio.timeout(LIMIT_S):
            second = await served.client.post("/v1/complete", json=body)
        assert second.status_code == 503
        assert not first.done()
        process.resume()
        assert (await first).status_code == 200


async def test_promise_24_what_is_complete_at_the_deadline_is_the_answer(served: ServedGguf) -> None:
    # More than it can write in this time, and a request that is not to be shortened.
    body = {**COMPLETE, "max_tokens": 400, "single_line": False, "time_budget_ms": 1, "prefix": "q = 1\n" + CODE}
    response = await served.client.post("/v1/complete", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["finish_reason"] == "timeout"
