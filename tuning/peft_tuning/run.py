"""``tune`` from its options to an adapter in use: load, train, judge, register, activate.

The order matters. What can be refused is refused before anything is loaded; nothing is registered before it is
judged; nothing is activated before it is registered.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.files import private_folder
from peft_core.paths import Paths
from peft_daemon.adapters.manifest import Manifest, require_usable_name
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.engines import factory
from peft_daemon.engines.torch import families
from peft_daemon.lifecycle.runtime_info import find_running_daemon, publish_tuning_notice
from peft_tuning import methods
from peft_tuning.data.examples import DataSet, Example, FillExample, HoleKind
from peft_tuning.events import GateVerdict, Loading, TrainingEvent
from peft_tuning.gate import GateHoles
from peft_tuning.installation import Installation
from peft_tuning.job import TuneJob
from peft_tuning.model_card import write_description

if TYPE_CHECKING:
    from peft_tuning.prepare import PreparedRun
from peft_tuning.events import AdapterRegistered, ModelWritten

GATE_PROMPT_TOKENS = 384
"""Shorter prompts than an editor's: reading them is most of the gate's time."""


TuneEvent = TrainingEvent | Loading | GateVerdict | AdapterRegistered | ModelWritten
Tell = Callable[[TuneEvent], None]


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What the user asked for."""

    name: str
    job: TuneJob
    load_data: Callable[[Callable[[str, int, int], None]], DataSet]
    """Reads the data set; called once, given a progress callback."""
    repository: Path | None = None
    """The repository the data is from: its adapter is judged, and serves there alone."""
    activate: bool = True
    update: bool = False
    """Whether the name may exist: its adapter becomes an earlier version."""
    resume: bool = False
    gate_holes: int = 48


def check(request: TuneRequest, place: Installation) -> None:
    """Refuse what cannot work before anything is loaded.

    Raises Conflict for a name that is taken, InvalidInput for one that cannot be an adapter's and for a method the
    base's family does not have, NotFound for a base that is not here.
    """
    require_usable_name(request.name)
    method = methods.get(request.job.method)
    method.check(families.family_of(place.entry.family), request.job.options)
    if not place.base.path.is_file():
        raise NotFound(f"{place.entry.id} is not here", fix=f"`peft-daemon models pull {place.entry.id}`")
    place.require_intact()
    if not request.update and not request.resume and place.registry.history(request.name):
        raise Conflict(
            f"an adapter '{request.name}' exists",
            fix="Choose another `--name`, or add `--update` to make this its next version",
        )


def default_threads(paths: Paths) -> int:
    """Physical cores; one less while a daemon serves, which needs it for completions."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, cores - 1) if find_running_daemon(paths) is not None else cores


def run(request: TuneRequest, place: Installation, tell: Tell) -> None:
    """Do it all, and tell of it; a process that only helps (``torchrun``) tells nothing. Raises what every step raises.

    The last event is Registered, or Written for a method that makes a model of its own.
    """
    from peft_tuning import trainer  # noqa: PLC0415  (torch: seconds)

    check(request, place)
    folder = private_folder(place.folder(request.name))
    finished = (folder / trainer.ADAPTER).exists() and not (folder / trainer.CHECKPOINTS).exists()
    if finished and not request.resume:
        shutil.rmtree(folder)
        private_folder(folder)
    helps = bool(int(os.environ.get("RANK", "0")))
    tell = _silent if helps else tell
    with publish_tuning_notice(place.paths, request.name):
        data = _load(request, tell)
        prepared = prepare(request, place, data, tell)
        result = trainer.train(prepared, folder, tell, resume=request.resume)
        del prepared
        gc.collect()
        if helps:
            return
        last: AdapterRegistered | ModelWritten
        if methods.get(request.job.method).makes_adapter:
            verdict = _judge(request, place, data, result.adapter, tell) if request.repository is not None else None
            if verdict is not None:
                tell(verdict)
            write_description(request.name, place.entry, data, result, verdict)
            manifest = place.registry.import_(result.adapter, name=request.name, base=place.base)
            last = _activate(request, place, manifest, verdict)
        else:
            write_description(request.name, place.entry, data, result)
            last = ModelWritten(name=request.name, folder=str(result.adapter))
    shutil.rmtree(folder / trainer.CHECKPOINTS, ignore_errors=True)
    tell(last)


def prepare(request: TuneRequest, place: Installation, data: DataSet, tell: Tell) -> PreparedRun:
    """Load the base the method wants and encode the data for it; see ``preparing.prepare``."""
    import torch  # noqa: PLC0415  (seconds)

    from peft_daemon.engines.torch.base_model import load_gguf  # noqa: PLC0415
    from peft_tuning import prepare  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = methods.get(request.job.method).precision_on(device)
    tell(Loading(what=f"{place.entry.id} as {precision}"))
    base = load_gguf(place.base.path, precision, device=device)
    return prepare.prepare(request.job, base, data, place.entry.prompt_formats)


def _load(request: TuneRequest, tell: Tell) -> DataSet:
    return request.load_data(lambda what, done, of: tell(Loading(what=what, done=done, of=of)))


def _judge(request: TuneRequest, place: Installation, data: DataSet, adapter: Path, tell: Tell) -> GateVerdict | None:
    """The gate's verdict on what would be served; None where the chosen engine cannot serve the method."""
    from peft_daemon.completion import formats  # noqa: PLC0415
    from peft_tuning.gate import (  # noqa: PLC0415
        ON_OR_OFF,
        SCALES,
        general_holes,
        judge,
    )
    from peft_tuning.served import serving  # noqa: PLC0415

    chosen = factory.engine_id(place.settings)
    with tempfile.TemporaryDirectory(prefix="peft-daemon-gate-") as scratch:
        # A registry that nobody looks into: what is judged is not registered yet.
        registry = AdapterRegistry(Path(scratch))
        manifest = registry.import_(adapter, name="judged", base=place.base)
        if chosen not in manifest.engines:
            return None
        lease = registry.lease(manifest, engine=chosen)
        holes = GateHoles(
            sweep=_holes(data.validation, request.gate_holes // 2),
            judged=_holes(data.test, request.gate_holes),
            general=general_holes(request.gate_holes // 3),
        )

        async def all_of_it() -> GateVerdict:
            # Tuned on the original, which has lost less; judged on what will answer.
            async with serving(
                place.settings, place.entry, place.served_path, threads=request.job.threads or 0
            ) as engine:
                return await judge(
                    engine,
                    lease,
                    holes,
                    formats.get(place.entry.prompt_formats.fill),
                    prompt_tokens=min(GATE_PROMPT_TOKENS, place.settings.prompt_tokens),
                    tell=lambda what, done, of: tell(Loading(what=what, done=done, of=of)),
                    scales=SCALES if manifest.scalable else ON_OR_OFF,
                )

        return asyncio.run(all_of_it())


def _holes(examples: Sequence[Example], most: int) -> tuple[FillExample, ...]:
    """Holes an answer can be compared with; whole function bodies have too many right ones."""
    fills = (each for each in examples if isinstance(each, FillExample) and each.kind is not HoleKind.BODY)
    return tuple(islice(fills, most))


def _activate(
    request: TuneRequest, place: Installation, manifest: Manifest, verdict: GateVerdict | None
) -> AdapterRegistered:
    """Put the adapter in use for what it was trained on: everywhere, or in its repository if the gate lets it."""
    why_not = _why_not(request, place, manifest, verdict)
    if not why_not:
        for task in manifest.tasks:
            place.registry.use(request.name, task, request.repository)
    return AdapterRegistered(
        name=request.name,
        digest=manifest.digest,
        folder=str(place.folder(request.name)),
        in_use=() if why_not else tuple(task.value for task in manifest.tasks),
        repository=str(request.repository) if request.repository and not why_not else None,
        why_not=why_not,
    )


def _why_not(request: TuneRequest, place: Installation, manifest: Manifest, verdict: GateVerdict | None) -> str:
    """What speaks against using it; empty for nothing."""
    try:
        manifest.require_engine(factory.engine_id(place.settings))
    except InvalidInput as error:
        return error.line
    if not request.activate:
        return "not asked for"
    if request.repository is not None and not (verdict and verdict.activate):
        return verdict.reason if verdict else "not judged"
    return ""


def _silent(_event: TuneEvent) -> None:
    """For processes that help another one, which tells."""
