"""Single-line infilling of hand-written functions: the share of holes filled right, with and without an adapter.

    python benchmarks/infilling.py HumanEval.jsonl.gz [--adapter NAME ...] [--count 100] [--json]

The holes are lines of HumanEval's canonical solutions, one at a time, the rest of the function around them (the task
of arXiv 2207.14255, section 4.2). `passes`: the filled function passes the problem's unit tests, in the sandbox, as
there; `exact`: the answer is the line, to the character. Same holes, prompts, engine and post-processing for all;
differences are tested in pairs (McNemar, exact, one-sided). The weights are those that serve:
a copy of `models optimize` where there is one, unless PEFT_DAEMON_MODEL_FILE is `original`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import msgspec
from rapidfuzz.distance import Levenshtein

from peft_core.code.document import Document
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.completion import formats
from peft_daemon.completion.formats import PromptFormat
from peft_daemon.completion.job import CompletionJob
from peft_daemon.completion.prompt import MARGIN_TOKENS
from peft_daemon.completion.stream import complete_once
from peft_daemon.engines.base import Engine
from peft_daemon.engines.temporary import measurement_settings, temporary_engine
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store
from peft_evaluation.sandbox.base import Sandbox, SandboxLimits, SandboxOutcome
from peft_evaluation.sandbox.execution import run_function
from peft_evaluation.sandbox.sandboxes import Bubblewrap
from peft_tuning.data.examples import FillExample, HoleKind
from peft_tuning.statistics import mcnemar

ANSWER_TOKENS = 96
"""Longest answer, the same as in an editor."""


class HoleScore(msgspec.Struct, frozen=True):
    """The score of one answer."""

    exact: bool
    passes: bool
    """Whether the function passes its tests with the answer in the hole."""
    similarity: float
    """1 - Levenshtein distance / length of the longer, of characters."""
    answer: str


class HoleAverage(msgspec.Struct, frozen=True):
    """Averages over some holes."""

    holes: int
    exact: float
    passes: float
    similarity: float


@dataclass(frozen=True)
class TestedHole:
    """A hole in a function, and the function's tests."""

    hole: FillExample
    function: str
    test: str
    """Defines ``check(candidate)``."""


def average_scores(scores: Sequence[HoleScore]) -> HoleAverage:
    """Return the means."""
    exact, passes = fmean(s.exact for s in scores), fmean(s.passes for s in scores)
    return HoleAverage(len(scores), exact, passes, fmean(s.similarity for s in scores))


def score_hole(tested: TestedHole, answer: str, sandbox: Sandbox) -> HoleScore:
    """Compare an answer with the code that was cut out, where white space at the end does not count, and run it."""
    hole = tested.hole
    wanted, given = hole.middle.rstrip(), answer.rstrip()
    whole = hole.prefix + answer + hole.suffix
    ran = run_function(whole, tested.function, (tested.test,), sandbox, SandboxLimits())
    similarity = Levenshtein.normalized_similarity(given, wanted)
    return HoleScore(given == wanted, ran.outcome is SandboxOutcome.PASSED, similarity, answer)


async def score_holes(
    engine: Engine,
    holes: Sequence[TestedHole],
    prompt_format: PromptFormat,
    adapter: AdapterLease | None,
    *,
    prompt_tokens: int,
    on_scored: Callable[[], None],
) -> tuple[HoleScore, ...]:
    """Fill every hole once, greedily, as serving does; ``on_scored`` is called after each."""
    scores, sandbox = [], Bubblewrap()
    for tested in holes:
        hole = tested.hole
        job = CompletionJob(
            document=Document.normalized(hole.prefix, hole.suffix, path=hole.path, language=hole.language),
            format=prompt_format,
            context_tokens=prompt_tokens + ANSWER_TOKENS + MARGIN_TOKENS,
            max_tokens=ANSWER_TOKENS,
            context=hole.context,
            adapter=adapter,
        )
        end = await complete_once(engine, job)
        scores.append(await asyncio.to_thread(score_hole, tested, end.text, sandbox))
        on_scored()
    return tuple(scores)


class Row(msgspec.Struct, frozen=True):
    """One way to fill the holes."""

    adapter: str
    scale: float
    average: HoleAverage
    p_exact: float
    p_passes: float
    """Whether it is better than the base."""


def holes(path: Path, count: int, seed: int = 0) -> list[TestedHole]:
    """``count`` lines of the solutions, drawn by seed."""
    found = []
    for row in map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines()):
        lines = row["canonical_solution"].rstrip("\n").split("\n")
        for number, line in enumerate(lines):
            code = line.strip()
            if not code or code.startswith("#"):
                continue
            indentation = line[: len(line) - len(line.lstrip())]
            before, after = lines[:number], lines[number + 1 :]
            hole = FillExample(
                id=f"{row['task_id']}:{number}",
                prefix=row["prompt"] + "".join(f"{each}\n" for each in before) + indentation,
                middle=code,
                suffix="\n" + "".join(f"{each}\n" for each in after),
                kind=HoleKind.LINE,
            )
            found.append(TestedHole(hole, row["entry_point"], row["test"]))
    return random.Random(seed).sample(found, min(count, len(found)))


def better(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the p-value of McNemar's exact test that ``after`` is right more often."""
    pairs = list(zip(before, after, strict=True))
    return mcnemar(pairs.count((False, True)), pairs.count((True, False)), alternative="greater")


async def measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, tuple[HoleScore, ...]]]:
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    update_shipped_adapters(settings, paths)
    entry, registry = catalogue.get(settings.model), AdapterRegistry(paths.adapters)
    which = holes(options.file, options.count)
    form = formats.get(entry.prompt_formats.fill)
    leases: list[tuple[str, AdapterLease | None]] = [("base", None)]
    for name in options.adapter:
        adapter, _, scale = name.partition("@")
        manifest = registry.get(adapter)
        leases.append((adapter, registry.lease(manifest, float(scale) if scale else manifest.scale)))
    rows: list[Row] = []
    answers: dict[str, tuple[HoleScore, ...]] = {}
    path = open_store(settings, paths).file_to_serve(entry, settings).path
    async with temporary_engine(measurement_settings(settings), entry, path) as engine:
        for name, lease in leases:
            done = 0

            def tell(name: str = name) -> None:
                nonlocal done
                done += 1
                sys.stderr.write(f"\r{name}: {done}/{len(which)}")

            scores = await score_holes(engine, which, form, lease, prompt_tokens=1024, on_scored=tell)
            sys.stderr.write("\n")
            base = answers.setdefault("base", scores)
            answers[name] = scores
            p_exact = better([each.exact for each in base], [each.exact for each in scores])
            p_passes = better([each.passes for each in base], [each.passes for each in scores])
            rows.append(Row(name, lease.scale if lease else 0.0, average_scores(scores), p_exact, p_passes))
    return rows, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--adapter", action="append", default=[], help="a name, or NAME@SCALE; may be repeated")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--answers", type=Path, help="write every answer to this file")
    options = parser.parse_args()
    rows, answers = asyncio.run(measure(options))
    if options.answers:
        options.answers.write_bytes(msgspec.json.format(msgspec.json.encode(answers), indent=2))
    if options.json:
        print(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        print(
            f"{row.adapter:<20} × {row.scale:<5g} exact {row.average.exact:6.1%} (p {row.p_exact:.3f})  "
            f"passes {row.average.passes:6.1%} (p {row.p_passes:.3f})  "
            f"similarity {row.average.similarity:.3f}  {row.average.holes} holes"
        )


if __name__ == "__main__":
    main()
