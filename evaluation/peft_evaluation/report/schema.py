"""The types of ``report.json``, which has everything that reports show; and the description of this machine."""

from __future__ import annotations

import os
import platform
from enum import StrEnum

import msgspec
import psutil

from peft_core.processor import processor_name

SCHEMA = 1
"""Version of the format of ``report.json``; files of another version are not read."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a metric for one strategy, with a 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """Number of items with a value; an item may have none (no data flow, no tests)."""
    interval: str
    """How the interval was computed: ``wilson``, ``bootstrap``, or ``none``."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a strategy costs: tokens, time, memory. None: not known."""

    prompt_tokens: float
    """Mean over the items."""
    reused_tokens: float
    """Mean number of prompt tokens whose state was in the cache."""
    answer_tokens: float
    """Mean over the items."""
    latency_p50_ms: float
    latency_p95_ms: float
    tokens_per_s: float
    """Answer tokens of all items divided by the time spent on them."""
    at_once: int = 1
    """Items in progress at the same time: with more than one, a latency includes time spent on the others."""
    peak_memory_bytes: int | None = None
    adapter_bytes: int | None = None
    tuning_seconds: float | None = None
    """Duration of the adapter's training, from its manifest."""


class StrategyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one strategy, over all items."""

    id: str
    """Kind and parameters: ``zero-shot``, ``icl-3``, ``rag-bm25-3``, ``adapter:conala``."""
    settings: dict[str, str]
    """Everything needed to repeat it: format, adapter digest, retriever, n, k, …"""
    seeds: tuple[int, ...]
    """The strategy was run once with each seed, and an item's score is the mean."""
    metrics: dict[str, Measure]
    """By name, e.g. ``em@1``, ``chrf``, ``codebleu``, ``syntax``; in the order in which they are shown."""
    groups: dict[str, dict[str, Measure]] = {}
    """Metrics by group of items (difficulty in APPS, kind of hole), if there are groups."""
    costs: Costs


class Judgement(StrEnum):
    """The result of a comparison at the 5 % level, after the correction for several comparisons."""

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
    """p adjusted for the number of strategies compared on this metric (Benjamini and Hochberg)."""
    test: str
    """``mcnemar-exact`` or ``paired-permutation``."""
    judgement: Judgement
    won: int
    """Number of items where the strategy is better."""
    lost: int
    """Number of items where the strategy is worse."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The output of one strategy for one sample, with one seed, and its scores."""

    strategy: str
    seed: int
    texts: tuple[str, ...]
    """The answers, best first; one unless beam search or sampling was used."""
    scores: dict[str, float]
    """By metric; a metric that does not apply is absent."""
    outcomes: tuple[str, ...] = ()
    """Result of the tests for each text: ``passed``, ``failed``, ``timeout``, …; empty without tests."""
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
    """``test``, or the part of it: ``first 100 of test``."""
    items: int
    digest: str
    """sha256 of the items in their order."""
    licence: str
    provenance: str
    notes: tuple[str, ...] = ()
    """What a reader has to know, e.g. that two parts share questions."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that an evaluation ran on."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    accelerator: str = ""
    nodes: int = 1
    """Machines that answered. With more than one, the other fields describe the machine that ran the evaluation."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``report.json``."""

    schema: int = SCHEMA
    created: str
    """ISO 8601, UTC."""
    command: str
    """The command line."""
    seconds: float
    """Time of generating all answers; after an interruption, the sum over all runs."""
    model: str
    model_sha256: str
    engine: str
    decoding: dict[str, str]
    """Beams or samples, temperature, longest answer."""
    sandbox: str = ""
    """The sandbox in which answers were run; empty: none was run."""
    data: DataFacts
    machine: Machine
    versions: dict[str, str]
    baseline: str
    """Id of the strategy the others are compared with."""
    strategies: tuple[StrategyResult, ...]
    comparisons: tuple[Comparison, ...]
    items: tuple[ReportedSample, ...]
    warnings: tuple[str, ...] = ()
    """What limits the results, e.g. how many items have no data flow for CodeBLEU."""


def this_machine(nodes: int = 1) -> Machine:
    """Return processor, cores, memory, system, and the accelerator that torch finds, if any; with ``nodes``."""
    import torch  # noqa: PLC0415  (seconds; only at the end of a run)

    return Machine(
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        nodes=nodes,
    )
