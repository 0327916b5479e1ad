"""The types of ``bench.json``, the report of a typing benchmark."""

from __future__ import annotations

import msgspec

from peft_evaluation.report.schema import Comparison, Machine

SCHEMA = 1


class PolicyFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one system over all traces.

    Times are in milliseconds; null means never, or not known. Shares are from 0 to 1.
    """

    what: str
    """Description of the system."""
    keystrokes: int
    """Number of counted keystrokes: correct characters that do not end their line. Shares and times are of these."""
    typed: int
    """All characters typed by hand."""
    p50_ms: float | None
    """Time from keystroke to first suggestion; infinite if there never is one."""
    p95_ms: float | None
    p99_ms: float | None
    full_p50_ms: float | None
    """Time from keystroke to the full suggestion (a partial one may come first)."""
    full_p95_ms: float | None
    full_p99_ms: float | None
    within_100_ms: float
    within_300_ms: float
    within_1000_ms: float
    answer_p50_ms: float | None
    """Time from keystroke to the answer of its own request, even without a suggestion."""
    answer_p95_ms: float | None
    stayed: float
    """Share for which the ghost text from before remained valid."""
    never: float
    """Share that never got a suggestion."""
    nothing: float
    """Share whose own request was answered without a suggestion."""
    overtaken: float
    """Share for which the next event came before any suggestion or answer."""
    without_model: float | None
    """Share that got its suggestion from valid ghost text or an earlier answer, without the model."""
    requests: int
    prompt_evaluated: int | None
    prompt_reused: int | None
    decoded: int | None
    evaluated_per_typed: float | None
    """Prompt tokens evaluated per typed character."""
    decoded_per_typed: float | None
    kept: int | None
    """Requests that the daemon answered from earlier answers."""
    joined: int | None
    """Requests that the daemon answered from a generation that was already in progress."""
    cpu_s: float
    cpu_s_per_typed: float
    exact: float
    """Share of keystrokes with the correct line on the screen at the next event; wrong without a suggestion."""
    similarity: float
    """Mean edit similarity of the line; 0 without a suggestion."""
    exact_shown: float | None
    """``exact`` of the keystrokes with a suggestion."""
    similarity_shown: float | None
    """``similarity`` of the keystrokes with a suggestion."""
    accepted_per_shown: float | None
    """Correct characters (from the first one on) per character shown: those that could be accepted and would stay."""
    right_per_key: float | None = None
    """Correct characters on the screen per counted keystroke; null in reports of earlier versions."""
    wrong_per_key: float | None = None
    """Characters on the screen per counted keystroke that are not what was written there."""
    scenes: dict[str, float | None] = {}
    """Median time to the first suggestion by scene: ``cold-0s``, ``cold-2s``, ``reopened-2s``."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one of our policies divided by that of the better re-created policy."""

    policy: str
    figure: str
    value: float | None
    """Null if ours is infinite or not known; 0 if only the rival's is infinite."""
    rival: str


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A goal of the benchmark, and whether it was met."""

    what: str
    target: str
    value: float | None
    met: bool | None
    """Null: it was not measured."""


class TraceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that was replayed, without its events."""

    id: str
    code_base: str
    files: tuple[str, ...]
    seconds: float
    typed: int
    covers: tuple[str, ...]


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``bench.json``."""

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
    """Our policies compared with each rival, line by line: ``exact`` and ``similarity``."""
    latencies: dict[str, tuple[float | None, ...]]
    """All times from keystroke to first suggestion, by policy; for the chart."""
    traces: tuple[TraceFacts, ...]
    notes: tuple[str, ...] = ()


_NOTE = "Absolute times depend on the machine; compare the ratios within one run."
_QUICK = "A quick run has too few keystrokes for p95, p99 and tests of the quality."
