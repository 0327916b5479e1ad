"""What follows from how a run ended: the repository's new state, a line for the log, and when to try again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from peft_core.api_types import Task
from peft_core.errors import Conflict, InvalidInput
from peft_daemon.learning.log import LearningEvent
from peft_daemon.learning.run import RunEnd, Verdict
from peft_daemon.learning.state import LearnedVersion, PendingRun, RepositoryState

RETRY_S = (3_600.0, 4 * 3_600.0, 24 * 3_600.0)
"""How long to wait after the first, the second, and each further failure in a row."""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The state after a run, and what the log says of it."""

    state: RepositoryState
    event: LearningEvent
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


def conclude(
    state: RepositoryState,
    pending: PendingRun,
    end: RunEnd,
    *,
    ending: str,
    wait_s: float = 0.0,
    resumed: bool,
    now: float | None = None,
) -> Conclusion:
    """Return what follows from the end of a run.

    ``ending`` is why the daemon ended it, if it did, and ``wait_s`` how long it must not be tried again then;
    ``resumed``: it went on from a checkpoint. ``now`` is in seconds since 1970.
    """
    now = time.time() if now is None else now
    state = msgspec.structs.replace(state, peak_bytes=max(state.peak_bytes, end.peak_bytes))
    if end.registered is not None:
        return _finished(state, pending, end, now)
    if ending:
        if wait_s:
            state = msgspec.structs.replace(state, retry_at=now + wait_s, last=f"ended: {ending}", last_at=now)
        return Conclusion(state=state, event=LearningEvent.ENDED, text=f"{ending}; it goes on from its checkpoint")
    code = end.error.code if end.error is not None else ""
    if resumed and code in (Conflict.code, "not_found"):
        again = msgspec.structs.replace(state, pending=None)
        return Conclusion(state=again, event=LearningEvent.ENDED, text=f"it begins anew: {end.why}")
    if code == InvalidInput.code:
        # Nothing changes until there is new code, so it is not tried before.
        refused = _ended(state, f"nothing was learned: {end.why}", now, learned=pending.head, failures=0)
        return Conclusion(state=refused, event=LearningEvent.REFUSED, text=end.why)
    wait_s = RETRY_S[min(state.failures, len(RETRY_S) - 1)]
    failed = msgspec.structs.replace(
        state, failures=state.failures + 1, retry_at=now + wait_s, last=f"failed: {end.why}", last_at=now
    )
    text = f"{end.why}; tries again in {wait_s / 3_600:.0f} h"
    return Conclusion(state=failed, event=LearningEvent.FAILED, text=text)


def _finished(state: RepositoryState, pending: PendingRun, end: RunEnd, now: float) -> Conclusion:
    assert end.registered is not None  # noqa: S101  (the caller looked)
    made, verdict = end.registered, end.verdict
    figures = verdict.figures if verdict else {}
    if Task.FILL.value not in made.in_use:
        why = made.why_not or "it is not in use"
        state = _ended(state, f"not used: {why}", now, learned=pending.head, failures=0)
        state = msgspec.structs.replace(state, unused=(*state.unused, made.digest))
        return Conclusion(state=state, event=LearningEvent.REFUSED, text=why, figures=figures)
    text = f"in use{_gain(verdict)}"
    version = LearnedVersion(
        digest=made.digest,
        since=now,
        before=pending.before,
        setting_before=pending.setting_before,
        context_before=pending.context_before,
    )
    kept = {key: value for key, value in state.outcomes.items() if key == pending.before}
    state = _ended(state, text, now, learned=pending.head, failures=0)
    return Conclusion(
        state=msgspec.structs.replace(state, serving=version, outcomes=kept, unlearned=made.unlearned),
        event=LearningEvent.LEARNED,
        text=f"'{made.name}' ({made.digest[:12]}) is {text}",
        figures=figures,
    )


def _ended(state: RepositoryState, last: str, now: float, *, learned: str, failures: int) -> RepositoryState:
    return msgspec.structs.replace(
        state, pending=None, unlearned=0, learned=learned, last=last, last_at=now, failures=failures, retry_at=0.0
    )


def _gain(verdict: Verdict | None) -> str:
    """Return what the gate measured, as words that follow others."""
    if verdict is None:
        return ""
    now, before = verdict.adapter, verdict.served
    return f": {now.exact:.0%} of {now.holes} places in the newest code right, {before.exact:.0%} before"
