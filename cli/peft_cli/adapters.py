"""``peft-daemon adapters``: list, inspect, choose, import, export, merge and remove adapters.

The commands work on the adapters' folder and need no daemon. A running daemon uses a change from its next request on.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from peft_cli.output import Json, emit
from peft_core import settings
from peft_core.api_types import BASE, AdapterSummary, Task
from peft_core.errors import InvalidInput, NotFound
from peft_core.files import format_bytes
from peft_core.paths import Paths
from peft_core.status_types import TORCH
from peft_daemon.adapters.lora import validate_lora
from peft_daemon.adapters.manifest import SHORT_DIGEST_LENGTH, Manifest, TrainingRecord, usable_tasks
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.registry_state import NameVersion
from peft_daemon.adapters.validation import BaseModel
from peft_daemon.engines import factory
from peft_daemon.models.catalogue import Catalogue, open_catalogue
from peft_daemon.models.store import open_store

app = typer.Typer(
    help="List, inspect, choose, import, export and remove adapters.", no_args_is_help=True, rich_markup_mode=None
)

AdapterReference = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="A name, a digest, or the first digits of a digest (4 or more).")
]
AdapterName = Annotated[str, typer.Argument(metavar="NAME", help="An adapter's name.")]
ForTask = Annotated[
    Task | None, typer.Option("--task", help="Only for this task; default: those the adapter was trained for.")
]
OfTask = Annotated[Task | None, typer.Option("--task", help="Only for this task; default: for every task.")]


MAX_WEIGHT = 4.0


class ShownAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What ``adapters show --json`` prints."""

    manifest: Manifest
    history: tuple[NameVersion, ...]
    """Versions that the name has pointed at, newest last; empty for an adapter without a name."""
    active_for: list[str]


class UsedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What ``adapters use`` and ``unset`` print with ``--json``."""

    name: str | None
    """``base`` for no adapter; null: the folder has no setting of its own."""
    digest: str | None
    tasks: tuple[Task, ...]
    repository: str | None


class ExportedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What ``adapters export --json`` prints."""

    name: str
    digest: str
    path: str


class RemovedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """What ``adapters remove --json`` prints."""

    removed: str


@app.command("merge", epilog="Example: peft-daemon adapters merge python-fim mine@0.5 --name both")
def merge(
    adapters: Annotated[
        list[str], typer.Argument(metavar="ADAPTER[@WEIGHT]...", help="Two or more; a weight is 1 unless given.")
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the new adapter.")],
    as_json: Json = False,
) -> None:
    """Add LoRAs, each multiplied by its weight, into one adapter with exactly the effect of all of them."""
    from peft_daemon.adapters.lora import combine_loras

    registry = AdapterRegistry(Paths.from_environment().adapters)
    parts = [_merge_part(registry, each) for each in adapters]
    if len(parts) < 2:
        raise InvalidInput("there is only one adapter to merge", fix="Give two or more")
    first = parts[0].manifest
    for part in parts[1:]:
        part.manifest.require_base(first.base, first.base_sha256)
    base = base_of(first)
    sources = [(validate_lora(registry.lease(p.manifest, engine=TORCH).path, base), p.weight) for p in parts]
    with tempfile.TemporaryDirectory(prefix="peft-daemon-merge-") as folder:
        combine_loras(sources, _merged_record(parts), Path(folder))
        manifest = registry.import_(Path(folder), name=name, base=base)
    what = " + ".join(f"{part.weight:g} × {part.manifest.name}" for part in parts)
    emit(
        manifest,
        as_json=as_json,
        text=lambda: typer.echo(f"{name} ({manifest.digest[:SHORT_DIGEST_LENGTH]}) is {what}, of rank {manifest.rank}"),
    )


@app.command("list", epilog="Example: peft-daemon adapters list --json")
def list_adapters(as_json: Json = False) -> None:
    """Show all adapters and where they are in use."""
    rows = _registry().list_adapters(check=True)
    emit(rows, as_json=as_json, text=lambda: _print_rows(rows))


@app.command("show", epilog="Example: peft-daemon adapters show mine")
def show_adapter(adapter: AdapterReference, as_json: Json = False) -> None:
    """Show what an adapter was trained on, its metrics, its history and where it is in use."""
    registry = _registry()
    manifest = registry.get(adapter)
    shown = ShownAdapter(
        manifest=manifest, history=registry.history(manifest.name), active_for=registry.find_uses(manifest)
    )
    emit(shown, as_json=as_json, text=lambda: _print_shown(shown))


@app.command("use", epilog="Example: peft-daemon adapters use mine --task fill --repository .")
def use_adapter(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="A name or digest; `base` for the model without an adapter.")
    ],
    task: ForTask = None,
    repository: Annotated[
        Path | None, typer.Option("--repository", metavar="FOLDER", help="Only in this folder and below it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let an adapter answer requests, everywhere or in one repository."""
    registry = _registry()
    tasks = tuple(Task) if task is None else (task,)
    if adapter != BASE:
        settings, manifest = _settings(), registry.get(adapter)
        models = _catalogue().by_task(settings)
        tasks = usable_tasks(manifest, task, models)
        for each in tasks:
            manifest.require_engine(factory.engine_id(settings, models[each]))
    used = registry.use(adapter, tasks, repository)
    _report_use(used.name if used else BASE, used, tasks, repository, as_json=as_json)


@app.command("unset", epilog="Example: peft-daemon adapters unset --repository .")
def unset_adapter(
    repository: Annotated[
        Path, typer.Option("--repository", metavar="FOLDER", help="The folder whose setting is removed.")
    ],
    task: OfTask = None,
    as_json: Json = False,
) -> None:
    """Remove a folder's own setting, so that the one of a folder around it, or the general one, applies."""
    _registry().unset(task, repository)
    _report_use(None, None, tuple(Task) if task is None else (task,), repository, as_json=as_json)


@app.command("rollback", epilog="Example: peft-daemon adapters rollback mine")
def roll_back(name: AdapterName, as_json: Json = False) -> None:
    """Let a name point at its previous adapter."""
    manifest = _registry().rollback(name)
    emit(manifest, as_json=as_json, text=lambda: typer.echo(f"{name} is {manifest.digest[:SHORT_DIGEST_LENGTH]} again"))


@app.command("import", epilog="Example: peft-daemon adapters import runs/last/adapter --name mine --task fill")
def import_adapter(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A PEFT folder: adapter_config.json, adapter_model.safetensors.")
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the adapter.")],
    task: Annotated[Task | None, typer.Option("--task", help="What it was trained for; default: every task.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="ID", help="The model it was trained on; default: the one that answers its task."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a trained adapter against its base, convert it for llama.cpp if it can, and store it under its digest."""
    settings, paths = _settings(), Paths.from_environment()
    known = _catalogue()
    entry = known.get(base) if base else known.by_task(settings)[task or Task.FILL]
    model = BaseModel(entry.id, entry.sha256, open_store(settings, paths).path(entry))
    notices: list[str] = []
    manifest = _registry().import_(folder, name=name, task=task, base=model, on_notice=notices.append)
    for notice in notices:
        typer.echo(notice, err=True)

    def text() -> None:
        typer.echo(f"{name} is {manifest.digest[:SHORT_DIGEST_LENGTH]}: {_what(manifest)}")
        typer.echo(f"Use it with `peft-daemon adapters use {name}`")

    emit(manifest, as_json=as_json, text=text)


@app.command("export", epilog="Example: peft-daemon adapters export mine mine.gguf --format gguf")
def export_adapter(
    adapter: AdapterReference,
    destination: Annotated[Path, typer.Argument(metavar="PATH", help="A path that does not exist yet.")],
    form: Annotated[
        Literal["peft", "peft-float16", "gguf", "merged"],
        typer.Option(
            "--format",
            help="peft: a folder for PEFT; peft-float16: the same, rounded to half the bytes; gguf: a file for "
            "llama.cpp; merged: a whole model, the adapter and its base.",
        ),
    ] = "peft",
    as_json: Json = False,
) -> None:
    """Copy an adapter out of the registry."""
    registry = _registry()
    manifest = registry.get(adapter)
    path = destination
    if form == "merged":
        from peft_tuning.methods import export_merged

        export_merged(manifest, registry.lease(manifest, engine=TORCH).path, base_of(manifest).path, path)
    else:
        path = registry.export(adapter, destination, form)
    exported = ExportedAdapter(name=manifest.name, digest=manifest.digest, path=str(path.absolute()))
    emit(exported, as_json=as_json, text=lambda: typer.echo(f"{manifest.name} is copied to {path}"))


@app.command("remove", epilog="Example: peft-daemon adapters remove mine")
def remove_adapter(
    adapter: AdapterReference,
    force: Annotated[bool, typer.Option("--force", help="Also if it is in use or a name points at it.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a name with its history, or one digest; content that nothing refers to is deleted."""
    _registry().remove(adapter, force=force)
    emit(RemovedAdapter(removed=adapter), as_json=as_json, text=lambda: typer.echo(f"{adapter} is removed"))


def _registry() -> AdapterRegistry:
    return AdapterRegistry(Paths.from_environment().adapters)


def _catalogue() -> Catalogue:
    return open_catalogue(Paths.from_environment())


def _settings() -> settings.Settings:
    return settings.resolve(user_file=Paths.from_environment().config_file).settings


def _report_use(
    name: str | None, manifest: Manifest | None, tasks: tuple[Task, ...], repository: Path | None, *, as_json: bool
) -> None:
    used = UsedAdapter(
        name=name,
        digest=manifest.digest if manifest else None,
        tasks=tasks,
        repository=str(repository.absolute()) if repository else None,
    )
    where = f"in {used.repository}" if used.repository else "in all folders without a setting of their own"
    what = " and ".join(tasks)
    line = f"{name} serves {what} {where}" if name else f"{used.repository} has no setting of its own for {what} now"
    emit(used, as_json=as_json, text=lambda: typer.echo(line))


def _what(manifest: Manifest) -> str:
    size = format_bytes(manifest.gguf_bytes or manifest.peft_bytes)
    only = f", served by {manifest.engines[0]} only" if len(manifest.engines) == 1 else ""
    return f"{_method(manifest)}{_changes(manifest)} for {manifest.base}, {size}{only}"


def _method(manifest: Manifest) -> str:
    if manifest.virtual_tokens:
        return f"{manifest.method} of {manifest.virtual_tokens} virtual tokens"
    return f"{manifest.method} of rank {manifest.rank}" if manifest.rank else manifest.method


def _changes(manifest: Manifest) -> str:
    return f" on {', '.join(manifest.targets)} ({manifest.modules} modules)" if manifest.modules else ""


def _print_rows(rows: list[AdapterSummary]) -> None:
    if not rows:
        sys.stdout.write("no adapters; import one with `peft-daemon adapters import FOLDER --name NAME`\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("base", "name", "digest", "method", "rank", "for", "size", "in use")
    base = ""
    for row in sorted(rows, key=lambda each: each.base):
        if row.base != base:
            table.add_section()
        table.add_row(
            "" if row.base == base else row.base,
            row.name,
            row.digest[:SHORT_DIGEST_LENGTH],
            row.method,
            str(row.rank),
            "damaged" if row.damaged else row.task,
            format_bytes(row.size_bytes),
            "\n".join(row.active_for) or "no",
        )
        base = row.base
    for row in rows:
        if row.damaged:
            typer.echo(f"damaged, not used: {row.name} ({row.damaged})", err=True)
    # Texts of an adapter's record must not be read as formatting.
    Console(markup=False).print(table)


def _print_shown(shown: ShownAdapter) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = shown.manifest
    rows: list[tuple[str, object]] = [
        ("digest", manifest.digest),
        ("base", f"{manifest.base} ({manifest.base_family}, {manifest.base_sha256[:SHORT_DIGEST_LENGTH]})"),
        ("trained against", manifest.quantization),
        ("prompt format", manifest.prompt_format),
        ("trained for", ", ".join(manifest.tasks)),
        ("method", _method(manifest) + (f", alpha {manifest.alpha:g}" if manifest.rank else "")),
        (
            "changes",
            f"{', '.join(manifest.targets)} in {manifest.modules} modules" if manifest.modules else "no module",
        ),
        ("size", f"{manifest.parameters:,} parameters, {format_bytes(manifest.gguf_bytes or manifest.peft_bytes)}"),
        ("served by", ", ".join(manifest.engines)),
        ("data", manifest.data_digest or "unknown"),
        ("seed", "unknown" if manifest.seed is None else manifest.seed),
        ("versions", ", ".join(f"{key} {value}" for key, value in manifest.versions.items()) or "unknown"),
        ("metrics", ", ".join(f"{key} {value:g}" for key, value in manifest.metrics.items()) or "none"),
        ("scale", f"{manifest.scale:g}"),
        ("licence", manifest.licence),
        ("created", manifest.created),
        ("imported from", manifest.source),
        ("in use", ", ".join(shown.active_for) or "nowhere"),
        (
            "history",
            "\n".join(f"{version.since}  {version.digest[:SHORT_DIGEST_LENGTH]}" for version in shown.history)
            or "none",
        ),
    ]
    table = Table(title=manifest.name, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, str(value))
    Console(markup=False).print(table)


def base_of(manifest: Manifest) -> BaseModel:
    """Return the base model of an adapter; raises NotFound if it is not installed."""
    paths = Paths.from_environment()
    store = open_store(settings.resolve(user_file=paths.config_file).settings, paths)
    entry = _catalogue().get(manifest.base)
    if not store.is_installed(entry):
        raise NotFound(f"{entry.id} is not installed", fix=f"`peft-daemon models pull {entry.id}`")
    return BaseModel(entry.id, entry.sha256, store.path(entry))


@dataclass(frozen=True)
class MergePart:
    manifest: Manifest
    weight: float


def _merge_part(registry: AdapterRegistry, text: str) -> MergePart:
    reference, _, weight = text.partition("@")
    try:
        value = float(weight or 1)
    except ValueError:
        value = 0.0
    if not 0 < abs(value) <= MAX_WEIGHT:
        raise InvalidInput(
            f"'{weight}' is not a weight",
            why=f"a weight is a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not 0",
            fix="e.g. mine@0.5",
        )
    return MergePart(registry.get(reference), value)


def _merged_record(parts: list[MergePart]) -> TrainingRecord:
    """Return a record with what all parts have in common."""
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
