"""The steps of `models optimize`: write the candidates, time them, judge the fastest first, keep the first good one.

An unfinished copy survives an interruption, and the next run continues it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from peft_core.api_types import Task
from peft_core.http_download import PartialFile
from peft_core.processor import processor_name
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP
from peft_core.tasks import OnProgress
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.completion import formats
from peft_daemon.engines.base import Engine
from peft_daemon.engines.temporary import temporary_engine
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.optimized import CopyFigures, ModelFile, publish_optimized
from peft_daemon.models.store import ModelStore
from peft_daemon.requantize.comparison import (
    EXCERPT_COUNT,
    MAX_LOSS_NATS,
    CopyQuality,
    SpeedGain,
    compare_quality,
    load_excerpts,
    measure_speed,
)
from peft_daemon.requantize.copy import QuantizationRecipe, plan_layout, write_copy

CONTEXT_TOKENS = 2048
"""Longest context of the engines that are compared."""
MIN_GAIN = 1.15
"""A copy that is not this many times as fast is not worth its place on the disk."""
_WRITER_VERSION = 1
"""Counts up when the same recipe writes other bytes, so that an unfinished copy of the old kind is not gone on with."""


class OptimizeEvent(msgspec.Struct, frozen=True):
    """Progress of one step, such as ``writing iq4_nl``; ``done`` of ``total`` in units of the step."""

    step: str
    done: int
    total: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one recipe."""

    recipe: str
    bytes: int
    reading: float
    writing: float
    figures: CopyFigures | None = None
    """None where its speed alone decided, or a faster copy was good enough."""
    verdict: str


class OptimizationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run; ``kept`` is the recipe that serves from now on, or empty."""

    model: str
    candidates: tuple[Candidate, ...]
    kept: str
    path: str


class JudgingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter that candidates are judged with, if any, and the number of excerpts."""

    adapter: str = ""
    lease: AdapterLease | None = None
    excerpts: int = EXCERPT_COUNT


class Optimizer:
    """Optimizes one installed model. The caller holds the store's lock on it."""

    def __init__(
        self,
        store: ModelStore,
        entry: ModelEntry,
        settings: Settings,
        judging: JudgingOptions,
        on_progress: OnProgress[OptimizeEvent],
    ) -> None:
        """Raises NotFound when the model is not installed, or there is nothing to judge by."""
        self._store, self._entry, self._judging, self._on_progress = store, entry, judging, on_progress
        self._source = store.path(entry)
        # Candidates are for llama.cpp, whatever engine is set; one request at a time is what is compared.
        self._settings = msgspec.structs.replace(settings, engine=LLAMACPP, slots=1)
        self._texts = load_excerpts(judging.excerpts)

    def staged(self, recipe: QuantizationRecipe) -> Path:
        """Where the copy lies before it is judged."""
        return self._store.staging(self._entry) / f"{self._entry.sha256[:16]}-{recipe.id}-{_WRITER_VERSION}.copy"

    def write(self, recipe: QuantizationRecipe) -> ModelFile:
        """Write the copy, or what is missing of it; raises Conflict where the disk is too small, OSError."""
        plan, path = plan_layout(self._source, recipe), self.staged(recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(path) as file:
            self._store.require_room(self._entry, plan.bytes - file.size)
            write_copy(self._source, plan, file, self._progress_of(f"writing {recipe.id}"))
            file.sync()
            return ModelFile(path, file.sha256(), recipe.id)

    async def run(self, recipes: tuple[QuantizationRecipe, ...], *, keep: bool) -> OptimizationResult:
        """Try all ``recipes``; raises what ``write`` raises, and EngineFailed when the engine does not run."""
        copies = [self.write(recipe) for recipe in recipes]
        gains = [await self._gain(copy) for copy in copies]
        found: list[Candidate] = []
        best: tuple[ModelFile, CopyFigures] | None = None
        for copy, gain in sorted(zip(copies, gains, strict=True), key=lambda pair: -pair[1].both):
            figures, verdict = None, "a faster copy is good enough"
            if gain.both < MIN_GAIN:
                verdict = f"not faster by {MIN_GAIN - 1:.0%}"
            elif best is None:
                judged = await self.judge(copy)
                figures, verdict = _make_figures(gain, judged), _describe_verdict(judged)
                best = (copy, figures) if judged.passes else None
            size = copy.path.stat().st_size
            found.append(
                Candidate(
                    recipe=copy.recipe,
                    bytes=size,
                    reading=gain.reading,
                    writing=gain.writing,
                    figures=figures,
                    verdict=verdict,
                )
            )
        path = str(self._keep(*best)) if best and keep else ""
        for copy in copies:
            copy.path.unlink(missing_ok=True)
        return OptimizationResult(
            model=self._entry.id, candidates=tuple(found), kept=best[0].recipe if best and keep else "", path=path
        )

    def _keep(self, copy: ModelFile, figures: CopyFigures) -> Path:
        record = publish_optimized(
            self._store.home(self._entry),
            copy,
            name=self._source.stem,
            source_sha256=self._entry.sha256,
            adapter=self._judging.adapter,
            figures=figures,
            versions={name: importlib.metadata.version(name) for name in ("xllamacpp", "gguf", "numpy")},
            processor=processor_name(),
        )
        return self._store.home(self._entry) / record.file

    def _progress_of(self, step: str) -> Callable[[int, int], None]:
        return lambda done, total: self._on_progress(OptimizeEvent(step, done, total))

    async def _gain(self, copy: ModelFile) -> SpeedGain:
        async with self._engine(self._source) as original, self._engine(copy.path) as other:
            return await measure_speed(original, other, self._texts, self._progress_of(f"timing {copy.recipe}"))

    async def judge(self, copy: ModelFile) -> CopyQuality:
        """How well the copy answers; raises EngineFailed when the engine does not run."""
        form, lease = formats.of_model(self._entry.prompt_formats, Task.FILL), self._judging.lease
        async with self._engine(self._source) as original, self._engine(copy.path) as other:
            return await compare_quality(
                original, other, self._texts, form, lease=lease, advance=self._progress_of(f"judging {copy.recipe}")
            )

    def _engine(self, path: Path) -> AbstractAsyncContextManager[Engine]:
        lease = self._judging.lease
        return temporary_engine(
            self._settings, self._entry, path, context_tokens=CONTEXT_TOKENS, adapters=(lease,) if lease else ()
        )


def _make_figures(gain: SpeedGain, found: CopyQuality) -> CopyFigures:
    return CopyFigures(
        reading=gain.reading,
        writing=gain.writing,
        loss=found.loss,
        loss_bound=found.loss_bound,
        places=found.places,
        lines=found.lines,
        right=found.right,
        right_original=found.right_original,
        same=found.same,
    )


def _describe_verdict(found: CopyQuality) -> str:
    if found.passes:
        return "good enough"
    if found.loss_bound > MAX_LOSS_NATS:
        return f"may lose {found.loss_bound:.3f} nats, more than {MAX_LOSS_NATS}"
    return f"completes fewer lines ({found.right}, not {found.right_original} of {found.lines})"
