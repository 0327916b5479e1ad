"""The types of ``edits.json``, the report of a benchmark of next edits. It has figures only, no code."""

from __future__ import annotations

import msgspec

from peft_evaluation.edit_benchmark.scenarios import AnswerDistance, ScenarioKind
from peft_evaluation.edit_benchmark.scores import EditScores
from peft_evaluation.report.schema import Comparison, Machine, Measure

SCHEMA = 1


class EditTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in one scenario."""

    policy: str
    scenario: str
    scores: EditScores
    silence: str = ""
    """Why nothing was suggested, as the daemon says it."""
    away: int | None = None
    """Lines between the cursor and what was suggested; null without a suggestion."""
    distant: bool | None = None
    """Whether it does not begin in the window around the cursor."""
    size: int | None = None
    """Lines of the longer side of what was suggested, without those that stay."""
    confidence: float | None = None
    """How likely the edit that was written is right, also where it was not suggested for that."""
    tokens: int = 0
    """Tokens of the lines that this edit changes."""
    mean_log_probability: float | None = None
    """Of these tokens; null: not known."""
    decoded: int = 0
    """Tokens that the model wrote, at all places that it was asked for."""
    prompt_tokens: int = 0
    prompt_reused: int = 0
    latency_ms: float = 0.0
    repeated: bool = False
    """Another policy has asked the same just before, so the daemon had read the prompt."""


class SuggestedText(msgspec.Struct, frozen=True):
    """What was suggested, in words; only in the journal."""

    start: int
    old: str
    new: str
    why: str = ""


class JournaledTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the journal, which stays on this machine."""

    trial: EditTrial
    suggested: SuggestedText | None = None
    detail: str = ""


class ScenarioFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario without its texts."""

    id: str
    repository: str
    commit: str
    path: str
    language: str
    kind: ScenarioKind
    distance: AnswerDistance | None
    lines: int
    """Of the document."""
    edits: int
    """In the history."""
    place_found: bool | None
    """Whether the answer lies in one of the windows that are looked at; null without an answer."""


class EditFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one policy, with 95 % intervals: rates from 0 to 1. Figures of no trial are absent."""

    what: str
    trials: int
    figures: dict[str, Measure]
    groups: dict[str, dict[str, dict[str, Measure]]]
    """The same by ``distance``, ``kind``, ``language`` and ``repository``, and by the value of each."""
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    """Of requests that no other policy made before; null: nothing was asked."""
    silences: dict[str, int]
    """How often each reason was given for suggesting nothing."""


class EditBenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``edits.json``."""

    schema: int = SCHEMA
    created: str
    command: str
    seconds: float
    seed: int
    quick: bool
    model: str
    model_sha256: str
    scenarios_sha256: str
    machine: Machine
    versions: dict[str, str]
    edit_policies: dict[str, EditFigures]
    comparisons: tuple[Comparison, ...]
    """Each policy after the first compared with the first, scenario by scenario."""
    places_found: dict[str, Measure]
    """Share of answers that lie in a window that is looked at, by distance; ``all`` of them."""
    scenarios: tuple[ScenarioFacts, ...]
    trials: tuple[EditTrial, ...]
    notes: tuple[str, ...] = ()
