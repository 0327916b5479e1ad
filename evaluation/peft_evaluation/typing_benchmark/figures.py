"""Compute the figures of the policies from their replays, and compare them. Pure functions."""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median

import psutil

from peft_core.processor import processor_name
from peft_evaluation.report.schema import Comparison, Judgement, Machine
from peft_evaluation.scorers.metrics import MetricKind
from peft_evaluation.stats import adjust_p_values, compare
from peft_evaluation.typing_benchmark.editor import Keystroke
from peft_evaluation.typing_benchmark.policies.base import ResourceUsage
from peft_evaluation.typing_benchmark.policies.catalogue import POLICIES, RIVALS
from peft_evaluation.typing_benchmark.replay import Replayed, added
from peft_evaluation.typing_benchmark.results import _NOTE, _QUICK, BenchReport, Goal, PolicyFigures, Ratio, TraceFacts
from peft_evaluation.typing_benchmark.traces import Trace, digest_of


def figures_of(what: str, replayed: Sequence[Replayed], scenes: Mapping[str, Sequence[Replayed]]) -> PolicyFigures:
    """Return one policy's figures over its traces; ``scenes`` has its replays of each fixed scene.

    Raises ValueError if no keystroke was counted.
    """
    strokes = [stroke for each in replayed for stroke in each.keystrokes]
    if not strokes:
        raise ValueError("no keystroke was counted")
    count, typed = len(strokes), sum(each.typed for each in replayed)
    spent = ResourceUsage()
    for each in replayed:
        spent = added(spent, each.totals)
    first = [stroke.shown_ms for stroke in strokes]
    full = [stroke.full_ms for stroke in strokes]
    answered = [stroke.answered_ms for stroke in strokes if stroke.answered_ms is not None]
    shown = [stroke for stroke in strokes if stroke.judged.offered]
    offered, right = (sum(getattr(stroke.judged, each) for stroke in shown) for each in ("offered", "right"))
    return PolicyFigures(
        what=what,
        keystrokes=count,
        typed=typed,
        p50_ms=percentile(first, 50),
        p95_ms=percentile(first, 95),
        p99_ms=percentile(first, 99),
        full_p50_ms=percentile(full, 50),
        full_p95_ms=percentile(full, 95),
        full_p99_ms=percentile(full, 99),
        within_100_ms=_within(first, 100),
        within_300_ms=_within(first, 300),
        within_1000_ms=_within(first, 1000),
        answer_p50_ms=percentile(answered, 50) if answered else None,
        answer_p95_ms=percentile(answered, 95) if answered else None,
        stayed=_share_of(stroke.stayed for stroke in strokes),
        never=_share_of(value is None for value in first),
        nothing=_share_of(stroke.nothing for stroke in strokes),
        overtaken=_share_of(stroke.answered_ms is None and not stroke.judged.offered for stroke in strokes),
        without_model=_without_model(strokes),
        requests=spent.requests,
        prompt_evaluated=spent.prompt_evaluated,
        prompt_reused=spent.prompt_reused,
        decoded=spent.decoded,
        evaluated_per_typed=_per(spent.prompt_evaluated, typed),
        decoded_per_typed=_per(spent.decoded, typed),
        kept=spent.kept,
        joined=spent.joined,
        cpu_s=round(spent.cpu_s, 1),
        cpu_s_per_typed=round(spent.cpu_s / typed, 3),
        exact=_share_of(stroke.judged.exact for stroke in strokes),
        similarity=_rounded(fmean(stroke.judged.similarity for stroke in strokes)),
        exact_shown=_share_of(stroke.judged.exact for stroke in shown) if shown else None,
        similarity_shown=_rounded(fmean(stroke.judged.similarity for stroke in shown)) if shown else None,
        accepted_per_shown=_rounded(right / offered) if offered else None,
        right_per_key=_rounded(right / count),
        wrong_per_key=_rounded((offered - right) / count),
        scenes={name: _scene(each) for name, each in scenes.items()},
    )


def percentile(times: Sequence[float | None], percent: float) -> float | None:
    """Return a percentile by nearest rank; None stands for an infinite time.

    Raises ValueError without times.
    """
    if not times:
        raise ValueError("no time to take a percentile of")
    ordered = sorted(math.inf if time is None else time for time in times)
    found = ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
    return None if math.isinf(found) else found


def by_line(replayed: Iterable[Replayed], metric: str) -> dict[str, float]:
    """Return ``exact`` or ``similarity`` of each written line: the mean over its keystrokes, 0 without a suggestion."""
    values: dict[str, list[float]] = {}
    for each in replayed:
        for stroke in each.keystrokes:
            place = f"{each.trace}/{stroke.place}"
            values.setdefault(place, []).append(float(getattr(stroke.judged, metric)))
    return {place: fmean(each) for place, each in values.items()}


def _scene(replayed: Sequence[Replayed]) -> float | None:
    """Return the median over files of the last keystroke's time; None stands for an infinite time."""
    last = [each.keystrokes[-1].shown_ms if each.keystrokes else None for each in replayed]
    found = median(math.inf if time is None else time for time in last)
    return None if math.isinf(found) or math.isnan(found) else round(found, 1)


def _without_model(strokes: Sequence[Keystroke]) -> float | None:
    known = any(stroke.cached is not None for stroke in strokes)
    served = _share_of(stroke.stayed or bool(stroke.cached and stroke.judged.offered) for stroke in strokes)
    return served if known else None


def _within(times: Sequence[float | None], limit: float) -> float:
    return _share_of(time is not None and time <= limit for time in times)


def _share_of(found: Iterable[bool]) -> float:
    return _rounded(fmean(float(each) for each in found))


def _per(amount: int | None, typed: int) -> float | None:
    return None if amount is None else round(amount / typed, 2)


def _rounded(value: float) -> float:
    return round(value, 4)


# Our policies compared with the better of the re-created ones: ratios, goals, and tests of the quality.

OURS = ("ours", "ours-base")
_TARGETS = {
    "p50_ms": ("keystroke to first suggestion, p50", 0.6),
    "p95_ms": ("keystroke to first suggestion, p95", 0.35),
    "evaluated_per_typed": ("prompt tokens evaluated per typed character", 0.3),
    "cold-2s": ("cold open, after 2 s of looking", 0.5),
    "cold-0s": ("cold open, typing at once", 0.5),
    "reopened-2s": ("reopened after a restart", 0.15),
}
"""By figure: its description, and the goal, which is the largest ratio to the better rival."""
WITHOUT_MODEL = 0.5
QUALITY = ("exact", "similarity")
MOST_WRONG, LEAST_RIGHT = 0.5, 0.9
"""Of the characters that are shown where nothing is left out for being unsure."""


def ratios(policies: Mapping[str, PolicyFigures]) -> tuple[Ratio, ...]:
    """Return the ratio of our policies to the better rival for each figure with a goal; empty without a rival."""
    rivals = [name for name in RIVALS if name in policies]
    found = []
    for name in (name for name in OURS if name in policies):
        for figure in _TARGETS:
            measured = [rival for rival in rivals if _has(policies[rival], figure)]
            if not measured or not _has(policies[name], figure):
                continue
            best = min(measured, key=lambda rival: _value_of(policies[rival], figure))
            value = _ratio(_value_of(policies[name], figure), _value_of(policies[best], figure))
            found.append(Ratio(policy=name, figure=figure, value=value, rival=best))
    return tuple(found)


def compare_policies(replayed: Sequence[Replayed], *, seed: int) -> tuple[Comparison, ...]:
    """Compare the quality of each of our policies with each rival, line by line, with adjusted permutation tests."""
    found: list[Comparison] = []
    names = {each.policy for each in replayed}
    for metric in QUALITY:
        values = {name: by_line((each for each in replayed if each.policy == name), metric) for name in sorted(names)}
        pairs = [(ours, rival) for ours in OURS for rival in RIVALS if ours in names and rival in names]
        found += adjust_p_values(
            [compare((o, values[o]), (r, values[r]), metric, MetricKind.MEAN, seed=seed) for o, r in pairs]
        )
    return tuple(found)


def goals(
    policies: Mapping[str, PolicyFigures], ratios: Sequence[Ratio], comparisons: Sequence[Comparison]
) -> tuple[Goal, ...]:
    """Return the goals and whether ``ours`` met them; quality is that of ``ours-base`` if it was replayed."""
    by_figure = {ratio.figure: ratio.value for ratio in ratios if ratio.policy == "ours"}
    found = [
        Goal(
            what=words,
            target=f"at most {largest:g} of the better rival",
            value=by_figure.get(figure),
            met=None if by_figure.get(figure) is None else by_figure[figure] <= largest,  # type: ignore[operator]
        )
        for figure, (words, largest) in _TARGETS.items()
    ]
    share = policies["ours"].without_model if "ours" in policies else None
    found.append(
        Goal(
            what="keystrokes answered without the model",
            target=f"at least {100 * WITHOUT_MODEL:.0f} %",
            value=share,
            met=None if share is None else share >= WITHOUT_MODEL,
        )
    )
    found += _silence_goals(policies.get("ours"), policies.get("ours-all"))
    judged = next((name for name in reversed(OURS) if any(each.strategy == name for each in comparisons)), "")
    tests = [each for each in comparisons if each.strategy == judged]
    # If nothing was ever shown, the quality cannot be judged.
    silent = judged not in policies or policies[judged].exact_shown is None
    lowest = min((each.difference for each in tests), default=None)
    found.append(
        Goal(
            what=f"quality of {judged or 'ours'} not lower (paired test)",
            target="no rival significantly better",
            value=lowest,
            met=None if not tests or silent else all(each.judgement is not Judgement.WORSE for each in tests),
        )
    )
    return tuple(found)


def _silence_goals(ours: PolicyFigures | None, everything: PolicyFigures | None) -> Iterator[Goal]:
    """Yield what leaving out what the model is unsure of is to save and may cost, where both were replayed."""
    if ours is None or everything is None:
        return
    for what, mine, all_of_them, bound in (
        ("wrong", ours.wrong_per_key, everything.wrong_per_key, MOST_WRONG),
        ("right", ours.right_per_key, everything.right_per_key, LEAST_RIGHT),
    ):
        value = None if mine is None or not all_of_them else round(mine / all_of_them, 3)
        is_most = bound is MOST_WRONG
        yield Goal(
            what=f"characters shown and {what}, of those of ours-all",
            target=f"at {'most' if is_most else 'least'} {bound:g}",
            value=value,
            met=None if value is None else (value <= bound if is_most else value >= bound),
        )


def _has(figures: PolicyFigures, figure: str) -> bool:
    """Return whether a figure was measured: a time of None was (it is infinite), another figure of None was not."""
    if figure in figures.scenes or figure.endswith("_ms"):
        return True
    return getattr(figures, figure, None) is not None


def _value_of(figures: PolicyFigures, figure: str) -> float:
    value = figures.scenes[figure] if figure in figures.scenes else getattr(figures, figure)
    return math.inf if value is None else float(value)


def _ratio(ours: float, theirs: float) -> float | None:
    if math.isinf(ours):
        return None
    if math.isinf(theirs):
        return 0.0
    if theirs == 0:
        return 1.0 if ours == 0 else None
    return round(ours / theirs, 3)


_LIBRARIES = ("peft-daemon", "xllamacpp")


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
    """Return the report: figures of every replayed policy, ratios, goals and comparisons.

    Raises ValueError if a policy has no counted keystroke.
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
        policies[name] = figures_of(POLICIES[name].what, own, played)
        latencies[name] = tuple(stroke.shown_ms for each in own for stroke in each.keystrokes)
    compared = compare_policies(typed, seed=seed)
    found = ratios(policies)
    return BenchReport(
        created=created,
        command=command,
        seconds=seconds,
        seed=seed,
        quick=quick,
        model=model,
        model_sha256=model_sha256,
        traces_sha256=digest_of((*traces, *scenes)),
        machine=local_machine(),
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        policies=policies,
        ratios=found,
        goals=goals(policies, found, compared),
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


def local_machine() -> Machine:
    """Return this machine's description without accelerators: loading torch to find them takes seconds."""
    return Machine(
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{os.uname().sysname} {os.uname().machine}" if hasattr(os, "uname") else os.name,
    )
