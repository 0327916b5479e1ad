"""The report of a run, from all that was replayed. Pure but for what it notes of the machine."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence

import psutil

from peft_evaluation.machine import processor_name
from peft_evaluation.results import Machine
from peft_evaluation.typing import goals
from peft_evaluation.typing.measuring import figures
from peft_evaluation.typing.policies.catalogue import POLICIES
from peft_evaluation.typing.replaying import Replayed
from peft_evaluation.typing.results import BenchReport, TraceFacts
from peft_evaluation.typing.traces import Trace, digest

_LIBRARIES = ("peft-daemon", "xllamacpp")
_NOTE = "Absolute times are this machine's; the ratios within one run are what counts."
_QUICK = "A quick run: too few keystrokes for the tails (p95, p99) and for tests of quality."


def assemble(
    replayed: Sequence[Replayed],
    traces: Sequence[Trace],
    scenes: Sequence[Trace],
    *,
    created: str,
    command: str,
    seconds: float,
    seed: int,
    quick: bool,
    model: str,
    model_sha256: str,
) -> BenchReport:
    """Figures of every policy that was replayed, ratios, goals and comparisons.

    Raises ValueError where a policy has no counted keystroke.
    """
    ids = {trace.id for trace in traces}
    names = [name for name in POLICIES if any(each.policy == name for each in replayed)]
    typed = [each for each in replayed if each.trace in ids]
    policies, latencies = {}, {}
    for name in names:
        own = [each for each in typed if each.policy == name]
        played: dict[str, list[Replayed]] = {}
        for each in replayed:
            if each.policy == name and each.trace not in ids:
                played.setdefault("-".join(each.trace.split("-")[:2]), []).append(each)
        policies[name] = figures(POLICIES[name].what, own, played)
        latencies[name] = tuple(stroke.shown_ms for each in own for stroke in each.keystrokes)
    compared = goals.comparisons(typed, seed=seed)
    found = goals.ratios(policies)
    return BenchReport(
        created=created,
        command=command,
        seconds=seconds,
        seed=seed,
        quick=quick,
        model=model,
        model_sha256=model_sha256,
        traces_sha256=digest((*traces, *scenes)),
        machine=_machine(),
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        policies=policies,
        ratios=found,
        goals=goals.goals(policies, found, compared),
        comparisons=compared,
        latencies=latencies,
        traces=tuple(_facts(trace) for trace in (*traces, *scenes)),
        notes=(_NOTE, _QUICK) if quick else (_NOTE,),
    )


def _facts(trace: Trace) -> TraceFacts:
    return TraceFacts(
        id=trace.id,
        code_base=trace.code_base,
        files=tuple(file.name for file in trace.files),
        seconds=round(trace.seconds, 1),
        typed=trace.typed,
        covers=trace.covers,
    )


def _machine() -> Machine:
    """Where it ran, without a look at accelerators: loading torch for that would take seconds."""
    return Machine(
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{os.uname().sysname} {os.uname().machine}" if hasattr(os, "uname") else os.name,
    )
