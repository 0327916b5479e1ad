"""The index of a workspace: how long 10,000 files take, an update, a question; and how much memory that is.

    python benchmarks/context_index.py [--files 10000] [--from FOLDER] [--json]

The files are real ones (by default the installed packages), copied under new names with their words changed a little
when there are too few, so that no two are the same. Times are of this one process, with one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from peft_core.code.files import SkipReason, list_sources, list_workspace, read_source, walk_folder
from peft_core.code.imports import RelatedFiles
from peft_daemon.context.index import Index
from peft_daemon.context.selection import SelectionLimits, SelectionQuery, select_chunks

UPDATES = 200
QUESTIONS = 50


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    files: int
    passages: int
    megabytes_of_text: float
    listing_s: float
    build_s: float
    build_cpu_s: float
    """Processor time of that: on a machine with other work the one above is longer."""
    memory_mb: float
    """What the index adds to the process."""
    look_again_s: float
    """Listing the files again, and finding that none changed."""
    update_ms_p50: float
    update_ms_p95: float
    update_ms_most: float
    update_cpu_ms_p95: float
    select_ms_p50: float
    select_ms_p95: float
    select_cpu_ms_p50: float
    select_cpu_ms_p95: float


class Span(msgspec.Struct, frozen=True):
    """How long one thing took."""

    wall_ms: float
    cpu_ms: float


@contextmanager
def timed(spans: list[Span]) -> Iterator[None]:
    """Add how long the block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spans.append(Span(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)))


def p95(values: list[float]) -> float:
    """What one value in twenty is above."""
    return statistics.quantiles(values, n=20)[-1]


def sources(folder: Path, count: int) -> Iterator[str]:
    """Texts of real Python files, package by package; from the second round on with some of their names changed."""
    packages = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.endswith(".dist-info"))
    made = 0
    for number in itertools.count():
        for package in packages:
            for file in list_sources(package.resolve(), walk_folder(package.resolve())).files:
                if file.language != "python" or isinstance(text := read_source(file), SkipReason):
                    continue
                yield text if not number else text.replace("self", f"this_{number}").replace("name", f"title_{number}")
                made += 1
                if made == count:
                    return


def measure(root: Path) -> Figures:
    """Index a folder, change files of it, ask."""
    began = time.perf_counter()
    listing = list_workspace(root)
    listed, listed_cpu = time.perf_counter(), time.process_time()
    before = psutil.Process().memory_info().rss
    index = Index(root)
    for path in index.set_listing(listing):
        index.update(path)
    built, built_cpu = time.perf_counter(), time.process_time()
    memory = psutil.Process().memory_info().rss - before
    related = RelatedFiles(index.paths, index.text)
    rng = random.Random(1)
    updates: list[Span] = []
    for path in rng.sample(index.paths, min(UPDATES, len(index.paths))):
        file = root / path
        file.write_text(file.read_text() + "\n\ndef added_just_now(value):\n    return value\n")
        with timed(updates):
            index.update(path)
    asked: list[Span] = []
    for path in rng.sample(index.paths, min(QUESTIONS, len(index.paths))):
        text = index.text(path)
        cursor = len(text) * 2 // 3
        question = SelectionQuery(path, text[:cursor], text[cursor:])
        with timed(asked):
            select_chunks(index, related, question, (), SelectionLimits.of_tokens(300))
    start = time.perf_counter()
    assert not index.set_listing(list_workspace(root))
    again = time.perf_counter() - start
    return Figures(
        files=index.files,
        passages=index.passages,
        megabytes_of_text=sum((root / path).stat().st_size for path in index.paths) / 1e6,
        listing_s=listed - began,
        build_s=built - listed,
        memory_mb=memory / 1e6,
        look_again_s=again,
        build_cpu_s=built_cpu - listed_cpu,
        update_ms_p50=statistics.median(each.wall_ms for each in updates),
        update_ms_p95=p95([each.wall_ms for each in updates]),
        update_ms_most=max(each.wall_ms for each in updates),
        update_cpu_ms_p95=p95([each.cpu_ms for each in updates]),
        select_ms_p50=statistics.median(each.wall_ms for each in asked),
        select_ms_p95=p95([each.wall_ms for each in asked]),
        select_cpu_ms_p50=statistics.median(each.cpu_ms for each in asked),
        select_cpu_ms_p95=p95([each.cpu_ms for each in asked]),
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--from", dest="source", type=Path, default=Path(sysconfig.get_paths()["purelib"]))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="context-") as folder:
        root = Path(folder).resolve()
        for number, text in enumerate(sources(given.source, given.files)):
            file = root / f"part{number % 97}" / f"module_{number}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        figures = measure(root)
    if given.json:
        print(json.dumps(msgspec.to_builtins(figures)))
        return
    for name, value in msgspec.to_builtins(figures).items():
        print(f"{name:20} {value:,.2f}" if isinstance(value, float) else f"{name:20} {value:,}")


if __name__ == "__main__":
    main()
