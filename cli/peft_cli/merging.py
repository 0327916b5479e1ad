"""``adapters merge``: several LoRAs as one; and ``adapters export --format merged``: base and adapter as one model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from peft_cli.output import Json, emit
from peft_core import settings
from peft_core.api_types import TORCH
from peft_core.errors import InvalidInput, NotFound
from peft_core.paths import Paths
from peft_daemon.adapters.lora import validate_lora
from peft_daemon.adapters.manifest import Manifest, TrainingRecord
from peft_daemon.adapters.registry import SHORT_DIGEST_LENGTH, AdapterRegistry
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store

LARGEST_WEIGHT = 4.0


def register(app: typer.Typer) -> None:
    """Add the command to ``adapters``."""
    app.command("merge", epilog="Example: peft-daemon adapters merge python-fim mine@0.5 --name both")(merge)


def merge(
    adapters: Annotated[
        list[str], typer.Argument(metavar="ADAPTER[@WEIGHT]...", help="Two or more; a weight is 1 unless given.")
    ],
    name: Annotated[str, typer.Option("--name", help="The name that is to mean their sum.")],
    as_json: Json = False,
) -> None:
    """Add LoRAs up, exactly: one adapter that does what all of them do, each as strongly as its weight says."""
    from peft_daemon.adapters.lora import combine_loras

    registry = AdapterRegistry(Paths.from_environment().adapters)
    parts = [_part(registry, each) for each in adapters]
    if len(parts) < 2:
        raise InvalidInput("one adapter is its own sum", fix="Give two or more")
    first = parts[0].manifest
    for part in parts[1:]:
        part.manifest.require_base(first.base, first.base_sha256)
    base = base_of(first)
    sources = [(validate_lora(registry.lease(p.manifest, engine=TORCH).path, base), p.weight) for p in parts]
    with tempfile.TemporaryDirectory(prefix="peft-daemon-merge-") as folder:
        combine_loras(sources, _record(parts), Path(folder))
        manifest = registry.import_(Path(folder), name=name, base=base)
    what = " + ".join(f"{part.weight:g} × {part.manifest.name}" for part in parts)
    emit(
        manifest,
        as_json=as_json,
        text=lambda: typer.echo(f"{name} ({manifest.digest[:SHORT_DIGEST_LENGTH]}) is {what}, of rank {manifest.rank}"),
    )


def base_of(manifest: Manifest) -> BaseModel:
    """The model an adapter was made for; raises NotFound when it is not here."""
    paths = Paths.from_environment()
    store = open_store(settings.resolve(user_file=paths.config_file).settings, paths)
    entry = catalogue.get(manifest.base)
    if not store.is_installed(entry):
        raise NotFound(f"{entry.id} is not here", fix=f"`peft-daemon models pull {entry.id}`")
    return BaseModel(entry.id, entry.sha256, store.path(entry))


@dataclass(frozen=True)
class _Part:
    manifest: Manifest
    weight: float


def _part(registry: AdapterRegistry, text: str) -> _Part:
    reference, _, weight = text.partition("@")
    try:
        value = float(weight or 1)
    except ValueError:
        value = 0.0
    if not 0 < abs(value) <= LARGEST_WEIGHT:
        raise InvalidInput(
            f"'{weight}' is no weight", why=f"it is a number up to {LARGEST_WEIGHT:g}, not 0", fix="e.g. mine@0.5"
        )
    return _Part(registry.get(reference), value)


def _record(parts: list[_Part]) -> TrainingRecord:
    """What the parts agree on."""
    first = parts[0].manifest
    formats = {part.manifest.prompt_format for part in parts}
    tasks = {task for part in parts for task in part.manifest.tasks}
    licences = dict.fromkeys(part.manifest.licence for part in parts)
    return TrainingRecord(
        base=first.base,
        base_sha256=first.base_sha256,
        quantization=first.quantization,
        prompt_format=first.prompt_format if len(formats) == 1 else "unknown",
        tasks=tuple(sorted(tasks)),
        method="lora",
        licence=" and ".join(licences),
        metrics={f"weight of {part.manifest.digest[:12]}": part.weight for part in parts},
    )
