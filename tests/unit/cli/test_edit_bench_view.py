"""What people see of the benchmark of next edits while it goes on, and at its end."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peft_cli.edit_bench_view import EditsBar, EditsLog, edits_view
from peft_evaluation.edit_benchmark.run import Asking, EditBenchReported
from peft_tuning.events import Loading
from support.edit_bench_report import edit_report


def asking(done: int, **shares: float) -> Asking:
    return Asking(done=done, of=880, what="ours: shop-1", exact=shares, quiet=shares, eta_s=60.0 if done else 0.0)


def test_a_log_gets_a_line_now_and_then_with_the_figures_so_far() -> None:
    out, now = io.StringIO(), 0.0
    show = EditsLog(Console(file=out, width=120), clock=lambda: now)
    for second, event in enumerate([asking(0), *(asking(each, ours=0.25) for each in range(1, 8))]):
        now = 10.0 * second
        show(event)
    assert out.getvalue().splitlines() == [
        "0/880, ours: shop-1",
        "3/880, ours 25 % exact, 25 % quiet, 1:00 left",
        "6/880, ours 25 % exact, 25 % quiet, 1:00 left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_at_the_end_there_is_a_table_that_fits(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, color_system=None)
    with edits_view(console) as show:
        assert isinstance(show, EditsBar if terminal else EditsLog)
        show(Loading(what="reading histories"))
        show(asking(1, ours=1.0))
        show(EditBenchReported(folder="/data/benchmarks/mine", report=edit_report()))
    text = out.getvalue()
    assert "ours against nothing, exact: no difference shown (+0.667" in text
    assert "report: /data/benchmarks/mine/edits.html" in text
    row = next(line for line in text.splitlines() if "quiet rate" in line)
    assert row.split() == ["quiet", "rate", "83", "%", "100", "%"]
