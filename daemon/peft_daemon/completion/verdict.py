"""Which part decided what became of a request, read from how its stream ended; ``peft-daemon why`` has it in words."""

from __future__ import annotations

from peft_core.api_types import Eagerness, FinishReason
from peft_core.decisions import Decider
from peft_core.errors import EngineFailed, PeftDaemonError, Unavailable
from peft_daemon.completion.eagerness import EagernessFromFeedback
from peft_daemon.completion.stream import Completion, StreamStats


def decided(
    end: Completion, stats: StreamStats, eagerness: Eagerness | None, learned: EagernessFromFeedback
) -> tuple[Decider, str]:
    """Return which part decided what is shown, and what it says besides."""
    if end.text:
        return stats.decider or Decider.MODEL, ""
    match end.reason:
        case FinishReason.SUPERSEDED:
            paused = stats.decider is Decider.TYPING_PAUSE
            return (Decider.TYPING_PAUSE, "") if paused else (Decider.NEWER_REQUEST, stats.stage)
        case FinishReason.TIMEOUT:
            return Decider.DEADLINE, stats.stage
    if stats.decider is not None and stats.generation is None:
        return stats.decider, ""
    if end.doubt is not None:
        from_outcomes = f", learned from {learned.outcomes} outcomes" if eagerness is Eagerness.AUTO else ""
        least = learned.least(eagerness)
        return Decider.UNSURE, f"right with {end.doubt:.0%}, shown from {least:.0%} on ({eagerness}{from_outcomes})"
    return (Decider.POSTPROCESSING, end.emptied_by) if end.emptied_by else (Decider.NOTHING_WRITTEN, "")


def decider_of(error: PeftDaemonError) -> Decider:
    """Return the part that could not answer a request."""
    return Decider.ENGINE if isinstance(error, Unavailable | EngineFailed) else Decider.REFUSED
