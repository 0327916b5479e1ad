"""A build's progress where there is no terminal, and its estimate of the time left."""

from __future__ import annotations

import pytest

from peft_cli.progress_view import BuildLines, TimeLeft


def test_the_time_left_is_estimated_from_what_this_run_compiled() -> None:
    now = [100.0]
    left = TimeLeft(lambda: now[0])
    assert left(90, 100) == ""
    now[0] = 110.0
    assert left(95, 100) == "0:10 left"
    assert left(100, 100) == ""


def test_a_log_has_a_line_now_and_then_and_the_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = BuildLines(lambda: now[0])
    for done in range(1, 101):
        now[0] += 1
        lines.compiled(done, 100)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("compiled 1 of 100")
    assert said[1].startswith("compiled 31 of 100, 1:09 left")
    assert said[-1] == "compiled 100 of 100"
    assert len(said) == 5
