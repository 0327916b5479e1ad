"""``report.json`` as one value: everything that reports show. Only data, and the facts of this machine."""

from __future__ import annotations

import os
import platform
from enum import StrEnum
from pathlib import Path

import msgspec
import psutil

SCHEMA = 1
"""Of ``report.json``; a reader refuses another."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one strategy, with a 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """Items it is of; those without a value (no data flow, no tests) are not among them."""
    interval: str
    """How the interval was found: ``wilson``, ``bootstrap``, or ``none``."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy takes, besides what it gives. None: not known."""

    prompt_tokens: float
    """Mean over the items."""
    reused_tokens: float
    """Mean number of prompt tokens whose state was in the cache."""
    answer_tokens: float
    """Mean."""
    latency_p50_ms: float
    latency_p95_ms: float
    tokens_per_s: float
    """Answer tokens of all items divided by the time spent on them."""
    at_once: int = 1
    """Items in flight: with more than one, a latency has the time in it that the others took."""
    peak_memory_bytes: int | None = None
    adapter_bytes: int | None = None
    tuning_seconds: float | None = None
    """Of the adapter's training, from its manifest."""


class StrategyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way of answering, over all items."""

    id: str
    """As it was asked for, with its parameters: ``zero-shot``, ``icl-3``, ``rag-bm25-3``, ``adapter:conala``."""
    settings: dict[str, str]
    """All that is needed to repeat it: format, adapter digest, retriever, n, k, …"""
    seeds: tuple[int, ...]
    """More than one: the strategy was run once with each, and an item's score is the mean."""
    metrics: dict[str, Measure]
    """By name, e.g. ``em@1``, ``chrf``, ``codebleu``, ``syntax``; in the order to show."""
    groups: dict[str, dict[str, Measure]] = {}
    """The same by group of items (APPS difficulty, kind of hole), where there are groups."""
    costs: Costs


class Judgement(StrEnum):
    """What a comparison shows at 5 %, after the correction for comparing often."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two strategies on one metric, item by item."""

    strategy: str
    baseline: str
    metric: str
    difference: float
    """Strategy minus baseline."""
    low: float
    high: float
    """95 % interval of the difference."""
    p: float
    p_adjusted: float
    """After Benjamini and Hochberg, over all strategies compared on this metric."""
    test: str
    """``mcnemar-exact`` or ``paired-permutation``."""
    judgement: Judgement
    won: int
    """Items where the strategy is better ..."""
    lost: int
    """... and worse; the rest are equal."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What one strategy's output for one sample, with one seed, is worth."""

    strategy: str
    seed: int
    texts: tuple[str, ...]
    """Best first; one unless beams or samples were asked for."""
    scores: dict[str, float]
    """By metric; a metric that does not apply is absent."""
    outcomes: tuple[str, ...] = ()
    """Of running each text against the tests: ``passed``, ``failed``, ``timeout``, …; empty without tests."""
    examples: tuple[str, ...] = ()
    """Ids of the examples in its prompt."""
    prompt_tokens: int
    answer_tokens: int
    latency_ms: float


class ReportedSample(msgspec.Struct, frozen=True, kw_only=True):
    """One test item with all answers to it."""

    id: str
    group: str = ""
    question: str
    """The sentence, or the text around a hole with the hole marked."""
    reference: str
    answers: tuple[Score, ...]


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which items were used."""

    name: str
    part: str
    """``test``, or what was taken of it: ``first 100 of test``."""
    items: int
    digest: str
    """sha256 of the items in their order."""
    licence: str
    provenance: str
    notes: tuple[str, ...] = ()
    """What a reader has to know, e.g. that two parts share questions."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    accelerator: str = ""
    nodes: int = 1
    """Machines that answered. More than one: they were a cluster's, and the rest is of the one that asked them."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``report.json``."""

    schema: int = SCHEMA
    created: str
    """ISO 8601, UTC."""
    command: str
    """What was typed."""
    seconds: float
    """Of generating and scoring together, over all runs it was interrupted into."""
    model: str
    model_sha256: str
    engine: str
    decoding: dict[str, str]
    """Beams or samples, temperature, budget."""
    sandbox: str = ""
    """What answers were run in; empty: none was run."""
    data: DataFacts
    machine: Machine
    versions: dict[str, str]
    baseline: str
    """Id of the strategy the others are compared with."""
    strategies: tuple[StrategyResult, ...]
    comparisons: tuple[Comparison, ...]
    items: tuple[ReportedSample, ...]
    warnings: tuple[str, ...] = ()
    """E.g. how many items are degenerate for CodeBLEU."""


def this_machine(nodes: int = 1) -> Machine:
    """Processor, cores, memory, system, and the accelerator that torch sees, if any; ``nodes`` is noted."""
    import torch  # noqa: PLC0415  (seconds; only at the end of a run)

    return Machine(
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        nodes=nodes,
    )


def processor_name() -> str:
    """Its name as the system gives it; platform.processor() is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
