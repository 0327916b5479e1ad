"""The language server's view of the daemon: what it does while there is none, and what it tells of it.

The daemon's answers are played here, as no real one can be made to fail at a chosen moment; the tests with a real one
are in tests/e2e/lsp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import pytest

from peft_core.api_types import (
    AdapterUse,
    CompleteRequest,
    CompleteResponse,
    FeedbackRequest,
    FinishReason,
    Outcome,
    Task,
    WarmResponse,
)
from peft_core.errors import Conflict, InvalidInput, NotFound, PeftDaemonError, Unavailable
from peft_core.status_types import DaemonStatus, EngineState, EngineStatus
from peft_daemon.client import DaemonClient
from peft_lsp import daemon_connection
from peft_lsp.daemon_connection import DaemonConnection, ServerState, Status, StatusBoard

ANSWER = CompleteResponse(id="1", text="x", finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=None)
LOADING = EngineStatus(kind="llama.cpp", state=EngineState.STARTING, model="m")
READY = msgspec.structs.replace(LOADING, state=EngineState.READY)
FAILED = msgspec.structs.replace(LOADING, state=EngineState.FAILED, last_error="no memory", fix="Close something")
REQUEST = CompleteRequest(prefix="a")
TOLD = FeedbackRequest(offer="1", outcome=Outcome.REJECTED, language="python", suggestion="x", shown=1, model="m")


class Played:
    """A daemon whose engine goes through these states and whose answers are these."""

    def __init__(self, engines: list[EngineStatus], answers: list[CompleteResponse | PeftDaemonError]) -> None:
        self.engines, self.answers = engines, answers
        self.connections = 0
        self.connected = asyncio.Event()
        self.refuses: PeftDaemonError | None = None
        self.recorded: list[FeedbackRequest] = []
        self.warmed: list[CompleteRequest] = []
        self.held = asyncio.Event()
        self.held.set()
        self.cancelled = asyncio.Event()

    async def connect(self) -> DaemonClient:
        self.connections += 1
        await self.connected.wait()
        if self.refuses:
            raise self.refuses
        return cast(DaemonClient, self)

    async def status(self) -> DaemonStatus:
        engine = self.engines.pop(0) if len(self.engines) > 1 else self.engines[0]
        return DaemonStatus(
            version="1", protocol=1, pid=1, uptime_s=1, address="", config_digest="", model="m", engine=engine
        )

    async def complete(self, request: CompleteRequest) -> CompleteResponse:
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        answer = self.answers.pop(0)
        if isinstance(answer, PeftDaemonError):
            raise answer
        return answer

    async def warm(self, request: CompleteRequest) -> WarmResponse:
        self.warmed.append(request)
        if self.refuses:
            raise self.refuses
        return WarmResponse(warm=True)

    async def record(self, feedback: FeedbackRequest) -> bool:
        self.recorded.append(feedback)
        if self.refuses:
            raise self.refuses
        return True

    async def aclose(self) -> None:
        self.connected.clear()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Status]:
    monkeypatch.setattr(daemon_connection, "POLL_S", 0)
    return []


async def until(told: list[Status], state: ServerState) -> None:
    while not told or told[-1].state is not state:
        await asyncio.sleep(0)


def seen_from(told: list[Status], connect: Callable[[], Awaitable[DaemonClient]]) -> DaemonConnection:
    return DaemonConnection(StatusBoard(told.append), connect)


async def test_completions_are_none_until_the_model_is_loaded(told: list[Status]) -> None:
    played = Played([LOADING, LOADING, READY], [ANSWER])
    seen = seen_from(told, played.connect)
    assert await seen.complete(REQUEST) is None
    played.connected.set()
    await until(told, ServerState.IDLE)
    assert await seen.complete(REQUEST) == ANSWER
    assert [each.state for each in told] == [
        ServerState.LOADING,
        ServerState.LOADING,
        ServerState.IDLE,
        ServerState.THINKING,
        ServerState.IDLE,
        ServerState.IDLE,
    ]
    assert played.connections == 1


async def test_a_cancelled_caller_leaves_the_connection_to_the_others(told: list[Status]) -> None:
    played = Played([READY], [])
    seen = seen_from(told, played.connect)
    first, second = (asyncio.create_task(seen.client()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    played.connected.set()
    assert await second is cast(DaemonClient, played)
    assert played.connections == 1


async def test_a_daemon_that_cannot_be_reached_is_not_tried_again_with_every_key(told: list[Status]) -> None:
    played = Played([READY], [])
    played.refuses = Unavailable("no daemon", fix="Start one")
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.ERROR)
    assert told[-1].message == "no daemon. Start one"
    for _ in range(5):
        assert await seen.complete(REQUEST) is None
        await asyncio.sleep(0)
    assert played.connections == 1


async def test_a_model_that_does_not_load_is_an_error_with_its_reason(told: list[Status]) -> None:
    played = Played([LOADING, FAILED], [])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.ERROR)
    assert told[-1].message == "no memory. Close something"


async def test_a_daemon_that_loads_again_is_watched_until_it_is_ready(told: list[Status]) -> None:
    played = Played([READY], [Unavailable("restarting"), ANSWER])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.IDLE)
    played.engines = [LOADING, READY]
    assert await seen.complete(REQUEST) is None
    assert told[-1].state is ServerState.LOADING
    await until(told, ServerState.IDLE)
    assert await seen.complete(REQUEST) == ANSWER


async def test_a_refused_request_is_told_and_the_next_good_one_clears_it(told: list[Status]) -> None:
    played = Played([READY], [InvalidInput("no adapter 'x'", fix="Choose another"), ANSWER])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.IDLE)
    assert await seen.complete(REQUEST) is None
    assert (told[-1].state, told[-1].message) == (ServerState.ERROR, "no adapter 'x'. Choose another")
    assert await seen.complete(REQUEST) == ANSWER
    assert (told[-1].state, told[-1].message) == (ServerState.IDLE, "")


async def test_a_daemon_of_another_version_is_connected_to_anew_after_a_while(told: list[Status]) -> None:
    played = Played([READY], [Conflict("the daemon is peft-daemon 9", fix="`peft-daemon start` replaces it"), ANSWER])
    played.connected.set()
    now = 0.0
    seen = DaemonConnection(StatusBoard(told.append), played.connect, clock=lambda: now)
    seen.start()
    await until(told, ServerState.IDLE)
    assert await seen.complete(REQUEST) is None
    assert told[-1].state is ServerState.ERROR
    played.connected.set()
    assert await seen.complete(REQUEST) is None
    assert played.connections == 1, "not at every keystroke"
    now += daemon_connection.RETRY_S
    assert await seen.complete(REQUEST) is None
    await until(told, ServerState.IDLE)
    assert played.connections == 2
    assert await seen.complete(REQUEST) == ANSWER


async def test_an_unforeseen_failure_does_not_leave_the_status_at_loading(told: list[Status]) -> None:
    async def broken() -> DaemonClient:
        raise ValueError("a bug")

    seen = seen_from(told, broken)
    seen.start()
    await until(told, ServerState.ERROR)
    assert "a bug" in told[-1].message


async def test_after_closing_nothing_runs_on(told: list[Status]) -> None:
    played = Played([LOADING], [])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.LOADING)
    await seen.client()
    await seen.close()
    await asyncio.sleep(0)
    assert not played.connected.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_feedback_that_cannot_be_told_is_lost_and_changes_no_status(told: list[Status]) -> None:
    played = Played([READY], [])
    seen = seen_from(told, played.connect)
    await seen.record(TOLD)
    assert played.connections == 0, "it is no reason to start a daemon"
    played.connected.set()
    seen.start()
    await until(told, ServerState.IDLE)
    await seen.record(TOLD)
    played.refuses = Unavailable("the disk is full")
    await seen.record(TOLD)
    assert played.recorded == [TOLD, TOLD]
    assert told[-1].state is ServerState.IDLE


async def test_warming_up_waits_for_the_model_and_shows_nothing(told: list[Status]) -> None:
    played = Played([LOADING, LOADING, READY], [])
    seen = seen_from(told, played.connect)
    warming = asyncio.create_task(seen.warm(REQUEST))
    await asyncio.sleep(0)
    assert played.warmed == []
    played.connected.set()
    assert await warming
    assert played.warmed == [REQUEST]
    assert [each.state for each in told] == [ServerState.LOADING, ServerState.LOADING, ServerState.IDLE]


@pytest.mark.parametrize("error", [NotFound("no such route"), Unavailable("restarting"), Conflict("another version")])
async def test_a_daemon_that_cannot_warm_up_is_left_in_peace(told: list[Status], error: PeftDaemonError) -> None:
    played = Played([READY], [])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.IDLE)
    played.refuses = error
    before = list(told)
    assert not await seen.warm(REQUEST)
    assert told == before


async def test_without_a_model_there_is_no_warming_up(told: list[Status]) -> None:
    played = Played([FAILED], [])
    played.refuses = Unavailable("no daemon")
    played.connected.set()
    assert not await seen_from(told, played.connect).warm(REQUEST)
    assert played.warmed == []


async def test_going_on_shows_nothing_whatever_comes_of_it(told: list[Status]) -> None:
    played = Played([READY], [ANSWER, Unavailable("restarting")])
    seen = seen_from(told, played.connect)
    assert await seen.complete_in_background(REQUEST) is None
    assert played.connections == 0
    played.connected.set()
    seen.start()
    await until(told, ServerState.IDLE)
    before = list(told)
    assert await seen.complete_in_background(REQUEST) == ANSWER
    assert await seen.complete_in_background(REQUEST) is None
    assert told == before


async def test_a_cancelled_request_stays_for_a_moment_so_that_the_next_key_may_join_it(
    told: list[Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played([READY], [ANSWER])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.IDLE)
    played.held.clear()
    asked = asyncio.create_task(seen.complete(REQUEST))
    await until(told, ServerState.THINKING)
    monkeypatch.setattr(daemon_connection, "CANCEL_AFTER_S", 0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert told[-1].state is ServerState.IDLE
    assert not played.cancelled.is_set()
    await played.cancelled.wait()


async def test_closing_waits_for_no_cancelled_request(told: list[Status]) -> None:
    played = Played([READY], [ANSWER])
    played.connected.set()
    seen = seen_from(told, played.connect)
    seen.start()
    await until(told, ServerState.IDLE)
    played.held.clear()
    asked = asyncio.create_task(seen.complete(REQUEST))
    await until(told, ServerState.THINKING)
    asked.cancel()
    await asyncio.sleep(0)
    await seen.close()
    await played.cancelled.wait()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def board() -> tuple[StatusBoard, list[Status]]:
    told: list[Status] = []
    return StatusBoard(told.append), told


ADAPTERS_ANSWER = CompleteResponse(
    id="1", text="x", finish_reason=FinishReason.STOP, task=Task.FILL, model="m", adapter=AdapterUse("mine", "d", 1.0)
)


def test_a_load_is_told_from_its_start_to_the_ready_model() -> None:
    status, told = board()
    status.daemon(ServerState.LOADING)
    status.daemon(ServerState.LOADING, model="m")
    status.daemon(ServerState.LOADING, model="m")
    status.daemon(ServerState.IDLE)
    assert [(each.state, each.model) for each in told] == [
        (ServerState.LOADING, ""),
        (ServerState.LOADING, "m"),
        (ServerState.IDLE, "m"),
    ]


def test_the_model_is_thinking_until_the_last_of_several_requests_ends() -> None:
    status, told = board()
    status.daemon(ServerState.IDLE, model="m")
    with status.thinking():
        with status.thinking():
            assert status.status.state is ServerState.THINKING
        assert status.status.state is ServerState.THINKING
    assert [each.state for each in told] == [ServerState.IDLE, ServerState.THINKING, ServerState.IDLE]


def test_an_answer_tells_its_adapter_and_time_and_ends_an_error() -> None:
    status, told = board()
    status.daemon(ServerState.ERROR, message="broken")
    status.answered(ADAPTERS_ANSWER, 12.4)
    assert told[-1] == Status(state=ServerState.IDLE, model="m", adapter="mine", latency_ms=12)


def test_switched_off_is_shown_whatever_the_daemon_does() -> None:
    status, told = board()
    status.enable(False)
    status.daemon(ServerState.LOADING)
    status.daemon(ServerState.IDLE)
    assert {each.state for each in told} == {ServerState.OFF}
    status.enable(True)
    assert told[-1].state is ServerState.IDLE
