"""What a tuning run says on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peft_cli.progress_view import TuningView
from peft_tuning.events import AdapterRegistered, Loading, StepFinished, TrainingStarted


@pytest.mark.parametrize("refused", [True, False])
def test_putting_an_adapter_in_use_is_offered_only_where_it_is_possible(*, refused: bool) -> None:
    out = io.StringIO()
    with TuningView(Console(file=out, width=200)) as view:
        view(
            AdapterRegistered(name="mine", digest="d" * 64, folder="/f", in_use=(), why_not="not now", refused=refused)
        )
    assert "mine (dddddddddddd) is not in use (not now)" in out.getvalue()
    assert ("`peft-daemon adapters use mine` would change that" in out.getvalue()) != refused


def test_a_log_tells_now_and_then_how_far_a_run_is() -> None:
    out, now = io.StringIO(), 0.0
    with TuningView(Console(file=out, width=200), clock=lambda: now) as view:
        for done in range(3):
            now += 20
            view(Loading(what="reading files", done=done, of=3))
        view(TrainingStarted(steps=9, first_step=0, examples=18, trainable_parameters=7))
        for step in range(1, 5):
            now += 20
            view(
                StepFinished(
                    step=step,
                    steps=9,
                    epoch=0.1,
                    loss=1.5,
                    learning_rate=1e-4,
                    tokens_per_s=100,
                    memory_bytes=10**9,
                    eta_s=60,
                )
            )
    told = out.getvalue().splitlines()
    assert [line for line in told if "reading files" in line] == ["reading files 1/3"]
    assert [line.split("  ")[0] for line in told if "loss 1.500" in line and line.startswith("step ")][:2] == [
        "step 1/9",
        "step 3/9",
    ]
