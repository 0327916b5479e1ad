"""What follows from the end of a run: state, log line, and when it is tried again."""

from __future__ import annotations

import msgspec
import pytest

from peft_core.wire_errors import ErrorBody
from peft_daemon.learning.conclusion import RETRY_S, Conclusion, conclude
from peft_daemon.learning.log import LearningEvent
from peft_daemon.learning.run import HoleFigures, Registered, RunEnd, Verdict
from peft_daemon.learning.state import LearnedVersion, PendingRun, RepositoryState

NOW = 1_700_000_000.0
PENDING = PendingRun(head="c" * 40, budget_s=900, began=NOW - 60, before="old", setting_before=None)
STATE = RepositoryState(
    root="/shop", adapter="shop-learned", pending=PENDING, learned="b" * 40, outcomes={"old": "1", "other": "0"}
)
VERDICT = Verdict("better", "code-fim", HoleFigures(96, 0.15, 1.2), HoleFigures(96, 0.21, 1.0))
MADE = Registered("shop-learned", "new" * 8, ["fill"])


def ended(code: int = 1, **changes: object) -> RunEnd:
    facts: dict[str, object] = {"registered": None, "verdict": None, "error": None, "stderr": "", "peak_bytes": 5}
    return RunEnd(code=code, **{**facts, **changes})  # type: ignore[arg-type]


def after(end: RunEnd, *, state: RepositoryState = STATE, ending: str = "", resumed: bool = False) -> Conclusion:
    return conclude(state, PENDING, end, ending=ending, resumed=resumed, now=NOW)


def failed(code: str) -> ErrorBody:
    return ErrorBody(code=code, message="m", what="it did not work", why="a reason", fix="Do this")


def test_a_version_that_is_in_use_remembers_what_served_before() -> None:
    found = after(ended(0, registered=MADE, verdict=VERDICT))
    assert found.event is LearningEvent.LEARNED
    assert "21% of 96 places in the newest code right, 15% before" in found.text
    assert found.figures["exact_before"] == 0.15
    state = found.state
    assert state.serving == LearnedVersion(digest=MADE.digest, since=NOW, before="old", setting_before=None)
    assert (state.learned, state.pending, state.outcomes) == (PENDING.head, None, {"old": "1"})
    assert state.last.startswith("in use") and state.last_at == NOW and state.peak_bytes == 5


def test_a_refused_version_leaves_what_serves_and_is_not_tried_again_before_there_is_new_code() -> None:
    serving = LearnedVersion(digest="old", since=1.0)
    refused = Registered("newnewnew", "new" * 8, [], "not better: p = 0.3")
    found = after(ended(0, registered=refused, verdict=VERDICT), state=msgspec.structs.replace(STATE, serving=serving))
    assert (found.event, found.text) == (LearningEvent.REFUSED, "not better: p = 0.3")
    assert found.state.serving == serving and found.state.learned == PENDING.head
    assert found.state.unused == (refused.digest,) and found.state.pending is None


def test_a_run_that_the_daemon_ended_is_pending() -> None:
    found = after(ended(130), ending="on battery")
    assert found.event is LearningEvent.ENDED and "on battery" in found.text
    assert found.state == msgspec.structs.replace(STATE, peak_bytes=5)
    short = conclude(STATE, PENDING, ended(-9), ending="no memory", wait_s=60, resumed=False, now=NOW).state
    assert (short.retry_at, short.last, short.pending) == (NOW + 60, "ended: no memory", PENDING)


def test_a_run_that_registered_its_adapter_before_it_could_be_ended_has_come_to_its_end() -> None:
    assert after(ended(-9, registered=MADE, verdict=VERDICT), ending="on battery").event is LearningEvent.LEARNED


@pytest.mark.parametrize("code", ["conflict", "not_found"])
def test_a_run_that_cannot_be_resumed_begins_anew(code: str) -> None:
    """The code has new commits, or what served when it began does not serve any more."""
    found = after(ended(5, error=failed(code)), resumed=True)
    assert found.event is LearningEvent.ENDED and "begins anew" in found.text
    assert (found.state.pending, found.state.failures, found.state.learned) == (None, 0, STATE.learned)


def test_a_repository_with_too_little_code_waits_for_new_code() -> None:
    found = after(ended(2, error=failed("invalid_input")))
    assert found.event is LearningEvent.REFUSED and found.text == "it did not work: a reason. Do this"
    assert found.state.learned == PENDING.head and found.state.retry_at == 0.0


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (ended(9, error=failed("no_space")), "it did not work: a reason. Do this"),
        (ended(-9), "signal 9"),
        (ended(1, stderr="a traceback"), "a traceback"),
        (ended(3), "exit code 3"),
        (ended(5, error=failed("conflict")), "it did not work"),
    ],
)
def test_a_failure_is_told_and_tried_again_later_and_later(end: RunEnd, why: str) -> None:
    state = STATE
    for wait_s in (*RETRY_S, RETRY_S[-1]):
        found = after(end, state=state)
        assert found.event is LearningEvent.FAILED and why in found.text and why in found.state.last
        assert found.state.retry_at == NOW + wait_s
        assert found.state.pending == PENDING, "it goes on from a checkpoint if there is one"
        state = found.state
