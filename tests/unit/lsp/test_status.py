"""The client hears of every change of the status once."""

from __future__ import annotations

from peft_core.api_types import AdapterUse, CompleteResponse, FinishReason, Task
from peft_lsp.status import ServerState, Status, StatusBoard


def board() -> tuple[StatusBoard, list[Status]]:
    told: list[Status] = []
    return StatusBoard(told.append), told


ANSWER = CompleteResponse(
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
    status.answered(ANSWER, 12.4)
    assert told[-1] == Status(state=ServerState.IDLE, model="m", adapter="mine", latency_ms=12)


def test_switched_off_is_shown_whatever_the_daemon_does() -> None:
    status, told = board()
    status.enable(False)
    status.daemon(ServerState.LOADING)
    status.daemon(ServerState.IDLE)
    assert {each.state for each in told} == {ServerState.OFF}
    status.enable(True)
    assert told[-1].state is ServerState.IDLE
