"""``peft-daemon models``: list, fetch, optimize and delete base models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_cli.output import Json, emit, run, termination_interrupts
from peft_core import settings
from peft_core.errors import Cancelled, Conflict, InvalidInput, NotFound, is_full
from peft_core.files import format_bytes
from peft_core.http_download import NoProgress
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.lifecycle.failed_starts import reset_backoff
from peft_daemon.models import catalogue, optimized
from peft_daemon.models.catalogue import ModelEntry, open_catalogue
from peft_daemon.models.optimized import remove_optimized
from peft_daemon.models.store import InstalledModel, ModelStore, open_store

if TYPE_CHECKING:
    from peft_daemon.requantize.optimizer import Candidate, JudgingOptions, OptimizationResult

app = typer.Typer(help="List, fetch, speed up and delete base models.", no_args_is_help=True, rich_markup_mode=None)

ModelId = Annotated[str, typer.Argument(metavar="ID", help="Catalogue id; `peft-daemon models list` shows all.")]


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model as ``models list --json`` prints it."""

    id: str
    family: str
    quantization: str
    licence: str
    bytes: int
    sha256: str
    context_tokens: int
    memory_bytes: int
    """Needed to serve it, roughly."""
    fill_score: float | None
    """Published share of holes that it fills exactly."""
    fill_score_source: str
    added: bool
    """Whether the user added it."""
    chosen: bool
    """Whether the setting `model` names it."""
    chosen_for_sentences: bool
    """Whether the setting `intent_model` names it."""
    installed: bool
    staged_bytes: int
    """Bytes received by an interrupted pull."""
    path: str | None
    source: str | None
    verified: str | None
    optimized: str | None
    """Recipe of the copy that `models optimize` kept."""


class PulledModel(msgspec.Struct, frozen=True, kw_only=True):
    """What ``models pull --json`` prints."""

    id: str
    path: str
    bytes: int
    sha256: str
    source: str
    verified: str


class RemovedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What ``models remove --json`` prints."""

    id: str
    freed_bytes: int


@app.command("optimize", epilog="Example: peft-daemon models optimize --dry-run")
def optimize(
    model_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Catalogue id; default: the setting `model`.", show_default=False)
    ] = "",
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="RECIPE", help="iq4_nl, iq4_nl-mlp, q4_0 or q8_0; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print, but keep nothing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the copy, and serve the original again.")] = False,
    as_json: Json = False,
) -> None:
    """Make a copy of the model that is faster on this processor and as good, and serve it.

    Takes some minutes, and about 1 GB of disk meanwhile. Adapters stay valid. An interrupted run is continued.
    """
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    entry, store = open_catalogue(paths).get(model_id or settings.model), open_store(settings, paths)
    if entry.folder is not None:
        raise InvalidInput(
            f"there is no faster copy of '{entry.id}'",
            why="copies are of GGUF files, for llama.cpp; this is a folder in transformers' layout",
            fix="Name another model, or set `torch_precision`",
        )
    if remove:
        _remove_copy(store, entry, as_json=as_json)
        return
    from peft_cli.progress_view import StepLines
    from peft_daemon.engines.llamacpp.choice import with_chosen_program
    from peft_daemon.requantize.copy import DEFAULT_RECIPES, get_recipe
    from peft_daemon.requantize.optimizer import Optimizer

    tried = tuple(get_recipe(recipe) for recipe in dict.fromkeys(candidate or DEFAULT_RECIPES))
    with store.locked(entry, NoProgress()):
        # Measured with the llama.cpp that will serve the copy.
        served = with_chosen_program(settings, paths, entry.sha256)
        optimizer = Optimizer(store, entry, served, _judging(settings, paths, entry), StepLines())
        try:
            with termination_interrupts():
                outcome = run(optimizer.run(tried, keep=not dry_run))
        except Cancelled:
            raise Cancelled(
                "interrupted",
                why="copies that were written are kept",
                fix=f"Type `peft-daemon models optimize {entry.id}` to go on",
            ) from None
        except OSError as error:
            raise Conflict(
                f"cannot write a copy into {store.folder}",
                why="the disk is full" if is_full(error) else error.strerror or str(error),
                fix=f"Correct that, then type `peft-daemon models optimize {entry.id}` to go on",
            ) from error
    emit(outcome, as_json=as_json, text=lambda: _print_outcome(outcome, dry_run))


@app.command("list", epilog="Example: peft-daemon models list --json")
def list_models(as_json: Json = False) -> None:
    """Show all known models, and which are installed."""
    settings = resolve_settings()
    store = open_store(settings, Paths.from_environment())
    mine = open_catalogue(Paths.from_environment()).user_entries()
    rows = [_row(entry, store, settings, added=False) for entry in catalogue.entries()]
    rows += [_row(entry, store, settings, added=True) for entry in mine]
    chosen = settings.model + (f"; for sentences: {settings.intent_model}" if settings.intent_model else "")
    emit(rows, as_json=as_json, text=lambda: _print_rows(rows, chosen, store.folder))


@app.command("pull", epilog="Example: peft-daemon models pull qwen2.5-coder-0.5b-instruct")
def pull_model(
    model_id: ModelId,
    local: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Copy this file instead of fetching one.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a model and verify its sha256; an interrupted pull is continued."""
    entry = open_catalogue(Paths.from_environment()).get(model_id)
    store = open_store(resolve_settings(offline=offline), Paths.from_environment())
    model = pull_with_progress(store, entry, local=local)
    pulled = PulledModel(
        id=model.id,
        path=str(model.path),
        bytes=model.bytes,
        sha256=model.sha256,
        source=model.source,
        verified=model.verified,
    )
    emit(pulled, as_json=as_json, text=lambda: typer.echo(f"{model.id} is installed: {model.path}"))


@app.command("remove", epilog="Example: peft-daemon models remove qwen2.5-coder-1.5b-instruct")
def remove_model(model_id: ModelId, as_json: Json = False) -> None:
    """Delete a model, and any interrupted download of it.

    A model that you added is taken out of the list; its file or folder stays if it was used where it lay.
    """
    paths = Paths.from_environment()
    known = open_catalogue(paths)
    entry, store = known.get(model_id), open_store(resolve_settings(), paths)
    forgotten = known.remove(model_id)
    try:
        freed = store.remove(entry)
    except NotFound:
        if not forgotten:
            raise
        freed = 0
    removed = RemovedModel(id=entry.id, freed_bytes=freed)
    emit(
        removed,
        as_json=as_json,
        text=lambda: typer.echo(f"{entry.id} is deleted, {format_bytes(freed)} are free again"),
    )


def pull_with_progress(store: ModelStore, entry: ModelEntry, *, local: Path | None = None) -> InstalledModel:
    """Run ``store.pull`` with a progress bar on stderr, or only with its notes if stderr is not a terminal.

    Ctrl-C and SIGTERM raise Cancelled; what was received is kept.
    """
    if store.is_installed(entry):
        return store.pull(entry)
    from peft_cli.progress_view import download_view

    try:
        with termination_interrupts(), download_view() as progress:
            started = time.monotonic()
            model = store.pull(entry, local=local, progress=progress)
            # An editor may have failed to start the daemon because the model was missing: allow a new try at once.
            reset_backoff(Paths.from_environment())
            progress.note(f"{entry.id}: complete and verified after {time.monotonic() - started:.0f} s")
            return model
    except KeyboardInterrupt:
        raise Cancelled(
            f"the download of {entry.id} was interrupted",
            why=f"{format_bytes(store.staged_bytes(entry))} of {format_bytes(entry.bytes)} are kept",
            fix=f"Type `peft-daemon models pull {entry.id}` to go on",
        ) from None


def resolve_settings(*, offline: bool = False) -> settings.Settings:
    """Return the settings as commands about models see them."""
    return settings.resolve(
        command_line={"offline": True if offline else None},
        project_file=settings.find_project_file(Path.cwd()),
        user_file=Paths.from_environment().config_file,
    ).settings


def _row(entry: ModelEntry, store: ModelStore, settings: Settings, *, added: bool) -> ModelRow:
    found = store.find(entry)
    copy = optimized.read_optimized(store.home(entry), entry.sha256) if found else None
    return ModelRow(
        id=entry.id,
        family=entry.family,
        quantization=entry.quantization,
        licence=entry.licence,
        bytes=entry.bytes,
        sha256=entry.sha256,
        context_tokens=entry.context_tokens,
        memory_bytes=entry.memory_bytes,
        fill_score=entry.fill_score,
        fill_score_source=entry.fill_score_source,
        added=added,
        chosen=entry.id == settings.model,
        chosen_for_sentences=entry.id == settings.intent_model,
        installed=found is not None,
        staged_bytes=store.staged_bytes(entry),
        path=str(found.path) if found else None,
        source=found.source if found else None,
        verified=found.verified if found else None,
        optimized=copy.recipe if copy else None,
    )


def _print_rows(rows: list[ModelRow], chosen: str, folder: Path) -> None:
    cells = [("model", "size", "memory", "quantization", "licence", "holes", "state")]
    for row in rows:
        score = "" if row.fill_score is None else f"{row.fill_score:.0%}"
        sizes = format_bytes(row.bytes), format_bytes(row.memory_bytes)
        cells.append((row.id, *sizes, row.quantization, row.licence, score, _state(row)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for source in dict.fromkeys(row.fill_score_source for row in rows if row.fill_score_source):
        typer.echo(f"\nholes: filled exactly, as published: {source}", nl=False)
    typer.echo(f"\nChosen: {chosen}\nFolder: {folder}")


def _state(row: ModelRow) -> str:
    if row.installed:
        return f"installed, optimized ({row.optimized})" if row.optimized else "installed"
    return f"{row.staged_bytes / row.bytes:.0%} fetched" if row.staged_bytes else "not installed"


def _remove_copy(store: ModelStore, entry: ModelEntry, *, as_json: bool) -> None:
    with store.locked(entry, NoProgress()):
        store.path(entry)
        freed = remove_optimized(store.home(entry))
    if not freed:
        raise NotFound(f"there is no optimized copy of {entry.id}", fix="Make one with `peft-daemon models optimize`")
    emit(
        {"model": entry.id, "freed_bytes": freed},
        as_json=as_json,
        text=lambda: typer.echo(
            f"the copy of {entry.id} is deleted, {format_bytes(freed)} are free again; {_UNTIL_STOPPED}"
        ),
    )


_UNTIL_STOPPED = "a running daemon uses its file until `peft-daemon stop`"


def _judging(settings: Settings, paths: Paths, entry: ModelEntry) -> JudgingOptions:
    """Return how copies are judged: with the adapter that fills in everywhere, as the daemon would serve them."""
    from peft_core.api_types import Task
    from peft_core.status_types import LLAMACPP
    from peft_daemon.adapters.registry import AdapterRegistry
    from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
    from peft_daemon.requantize.optimizer import JudgingOptions

    update_shipped_adapters(settings, paths)
    registry = AdapterRegistry(paths.adapters)
    manifest = registry.resolve(Task.FILL)
    if manifest is None or manifest.base_sha256 != entry.sha256 or LLAMACPP not in manifest.engines:
        return JudgingOptions()
    return JudgingOptions(adapter=manifest.name, lease=registry.lease(manifest, manifest.scale))


def _print_outcome(outcome: OptimizationResult, dry_run: bool) -> None:
    cells: list[tuple[str, ...]] = [
        ("recipe", "size", "reading", "writing", "loss (bound)", "lines (original)", "verdict")
    ]
    cells += [_outcome_cells(each) for each in outcome.candidates]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if outcome.kept:
        typer.echo(f"\n{outcome.kept} serves from the next start on ({_UNTIL_STOPPED}): {outcome.path}")
    else:
        typer.echo("\nNothing was kept" + (", as asked" if dry_run else ": no candidate is faster and as good"))


def _outcome_cells(each: Candidate) -> tuple[str, ...]:
    speeds = (each.recipe, format_bytes(each.bytes), f"{each.reading:.2f}x", f"{each.writing:.2f}x")
    if (f := each.figures) is None:
        return (*speeds, "", "", each.verdict)
    return (
        *speeds,
        f"{f.loss:+.3f} ({f.loss_bound:+.3f})",
        f"{f.right} ({f.right_original}) of {f.lines}",
        each.verdict,
    )
