"""What a run of the typing benchmark leaves: ``bench.json`` as one value. Only data."""

from __future__ import annotations

import msgspec

from peft_evaluation.report.schema import Comparison, Machine

SCHEMA = 1


class PolicyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One system over all traces. Times are milliseconds; null: for ever, or not known. Shares are from 0 to 1."""

    what: str
    keystrokes: int
    """Characters typed rightly in lines that go on after them: what all shares and latencies are of."""
    typed: int
    """All characters typed by hand."""
    p50_ms: float | None
    """Keystroke to first suggestion; a keystroke that never gets one counts as infinitely long."""
    p95_ms: float | None
    p99_ms: float | None
    full_p50_ms: float | None
    """The same to the suggestion's full length."""
    full_p95_ms: float | None
    full_p99_ms: float | None
    within_100_ms: float
    within_300_ms: float
    within_1000_ms: float
    answer_p50_ms: float | None
    """Keystroke to the answer of its own request, be it with nothing, where there was one."""
    answer_p95_ms: float | None
    stayed: float
    """Share through which ghost text stayed."""
    never: float
    """Share that never got a suggestion."""
    nothing: float
    """Share whose own request was answered with nothing to show."""
    overtaken: float
    """Share overtaken by the next event before anything was shown or answered."""
    without_model: float | None
    """Share that the ghost text which was there, or an earlier answer, served."""
    requests: int
    prompt_evaluated: int | None
    prompt_reused: int | None
    decoded: int | None
    evaluated_per_typed: float | None
    """Prompt tokens evaluated per typed character."""
    decoded_per_typed: float | None
    kept: int | None
    """Requests that the daemon answered from earlier answers ..."""
    joined: int | None
    """... and from a generation already under way."""
    cpu_s: float
    cpu_s_per_typed: float
    exact: float
    """Share of keystrokes at whose end the right line is on the screen; silence is wrong."""
    similarity: float
    """Mean edit similarity of the line; silence is 0."""
    exact_shown: float | None
    """The same where something is on the screen."""
    similarity_shown: float | None
    accepted_per_shown: float | None
    """Characters a person could accept per character shown."""
    scenes: dict[str, float | None] = {}
    """Median time to the first suggestion by scene: ``cold-0s``, ``cold-2s``, ``reopened-2s``."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One of ours to the better of the re-created policies."""

    policy: str
    figure: str
    value: float | None
    """Null where ours is infinite or not known; 0 where only the rivals' is infinite."""
    rival: str


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be reached."""

    what: str
    target: str
    value: float | None
    met: bool | None
    """Null: it was not measured."""


class TraceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was replayed."""

    id: str
    code_base: str
    files: tuple[str, ...]
    seconds: float
    typed: int
    covers: tuple[str, ...]


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """``bench.json``."""

    schema: int = SCHEMA
    created: str
    command: str
    seconds: float
    seed: int
    quick: bool
    model: str
    model_sha256: str
    traces_sha256: str
    machine: Machine
    versions: dict[str, str]
    policies: dict[str, PolicyFigures]
    ratios: tuple[Ratio, ...]
    goals: tuple[Goal, ...]
    comparisons: tuple[Comparison, ...]
    """Ours against each rival, line by line: ``exact`` and ``similarity``."""
    latencies: dict[str, tuple[float | None, ...]]
    """Keystroke to first suggestion, all of them, by policy; for the chart."""
    traces: tuple[TraceFacts, ...]
    notes: tuple[str, ...] = ()


# The report of a run, from all that was replayed. Pure but for what it notes of the machine.

_NOTE = "Absolute times are this machine's; the ratios within one run are what counts."
_QUICK = "A quick run: too few keystrokes for the tails (p95, p99) and for tests of quality."
