"""What people see of an evaluation while it goes on: bars on a terminal, lines in a log, scores in both."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peft_cli.evaluation_view import EvaluationBars, EvaluationLog, TypingLog, evaluation_view
from peft_evaluation.runner import AnswerVerified, EvaluationReported, SampleAnswered
from peft_evaluation.scorers.metrics import WHOLES
from peft_evaluation.typing_benchmark.run import Replaying
from peft_tuning.events import Loading
from support.evaluation_report import finished_report


def progress(done: int, *, strategy: str = "zero-shot", exact: float = 0.25) -> SampleAnswered:
    return SampleAnswered(
        done=done, of=543, strategy=strategy, item="t1", text="sorted(xs)\nmore", scores={"em@1": exact}, eta_s=90.0
    )


def lines(*events: tuple[float, Loading | SampleAnswered | AnswerVerified | EvaluationReported]) -> list[str]:
    out = io.StringIO()
    now = 0.0
    show = EvaluationLog(Console(file=out, width=80), clock=lambda: now)
    for at, event in events:
        now = at
        show(event)
    return out.getvalue().splitlines()


def test_a_log_gets_a_line_now_and_then_and_at_the_end_of_each_step() -> None:
    assert lines(
        (1, Loading(what="reading files", done=1, of=30)),
        (31, Loading(what="reading files", done=2, of=30)),
        (32, Loading(what="choosing examples")),
        (33, progress(1)),
        (50, progress(2)),
        (63, progress(3)),
        (64, progress(4, strategy="icl-3", exact=0.5)),
        (65, progress(543, strategy="icl-3", exact=0.125)),
        (66, AnswerVerified(done=1, of=2, item="t1", outcome="passed", passed=1)),
        (67, AnswerVerified(done=2, of=2, item="t2", outcome="failed", passed=1)),
    ) == [
        "reading files 2/30",
        "zero-shot 1/543, exact match, top 1 25.0 %, 1:30 left",
        "zero-shot 3/543, exact match, top 1 25.0 %, 1:30 left",
        "icl-3 4/543, exact match, top 1 50.0 %, 1:30 left",
        "icl-3 543/543, exact match, top 1 12.5 %, 1:30 left",
        "running answers 1/2, 1 passed (100 %)",
        "running answers 2/2, 1 passed (50 %)",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_at_the_end_there_is_a_table_that_fits(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, color_system=None)
    report = finished_report()
    with evaluation_view(console) as show:
        assert isinstance(show, EvaluationBars if terminal else EvaluationLog)
        show(Loading(what="reading"))
        show(progress(1))
        show(AnswerVerified(done=1, of=2, item="t1", outcome="passed", passed=1))
        show(
            EvaluationReported(
                folder="/data/evaluations/small",
                strategies=report.strategies,
                comparisons=report.comparisons,
                warnings=report.warnings,
            )
        )
    text = out.getvalue()
    assert "adapter:mine" in text
    assert "100.0 % [83.9, 100.0]" in text
    table = [line for line in text.splitlines() if line.startswith("│ ")]
    assert len(table) == sum(len(each.metrics.keys() & set(WHOLES)) for each in report.strategies)
    assert "…" not in text
    assert "/data/evaluations/small/report.html (`peft-daemon report open small`)" in text


def test_a_log_of_the_typing_benchmark_gets_a_line_now_and_then() -> None:
    out, now = io.StringIO(), 0.0
    show = TypingLog(Console(file=out, width=80), clock=lambda: now)
    for second in range(0, 70, 10):
        now = float(second)
        show(Replaying(done=1, of=4, what="ours: 01-x", eta_s=60.0))
    assert out.getvalue().splitlines() == ["1/4, ours: 01-x, 1:00 left"] * 3
