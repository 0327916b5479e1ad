"""``peft-daemon models``: which base models exist, fetching one, deleting one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_cli import optimize
from peft_cli.interrupts import termination_interrupts
from peft_cli.output import Json, emit
from peft_core import settings
from peft_core.errors import Cancelled
from peft_core.files import format_bytes
from peft_core.http_download import DownloadProgress
from peft_core.paths import Paths
from peft_daemon.lifecycle.failed_starts import reset_backoff
from peft_daemon.models import catalogue, optimized
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.store import InstalledModel, ModelStore, open_store

if TYPE_CHECKING:
    from rich import progress as bars

app = typer.Typer(help="List, fetch, speed up and delete base models.", no_args_is_help=True, rich_markup_mode=None)

optimize.register(app)

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
    chosen: bool
    """Whether the setting `model` names it."""
    installed: bool
    staged_bytes: int
    """Bytes of an unfinished pull."""
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


@app.command("list", epilog="Example: peft-daemon models list --json")
def list_models(as_json: Json = False) -> None:
    """Show the catalogue, and what of it is on this disk."""
    settings = _settings()
    store = open_store(settings, Paths.from_environment())
    installed = {model.id: model for model in store.list()}
    rows = [_row(entry, store, installed.get(entry.id), settings.model) for entry in catalogue.entries()]
    emit(rows, as_json=as_json, text=lambda: _print_rows(rows, settings.model, store.folder))


@app.command("pull", epilog="Example: peft-daemon models pull qwen2.5-coder-0.5b-instruct")
def pull_model(
    model_id: ModelId,
    local: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Take this file instead of the network's.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not touch the network.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a model and verify its sha256; goes on where an interrupted pull stopped."""
    entry = catalogue.get(model_id)
    store = open_store(_settings(offline=offline), Paths.from_environment())
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
    """Delete a model, and what an unfinished pull of it left."""
    entry = catalogue.get(model_id)
    freed = open_store(_settings(), Paths.from_environment()).remove(entry)
    removed = RemovedModel(id=entry.id, freed_bytes=freed)
    emit(
        removed,
        as_json=as_json,
        text=lambda: typer.echo(f"{entry.id} is deleted, {format_bytes(freed)} are free again"),
    )


def pull_with_progress(store: ModelStore, entry: ModelEntry, *, local: Path | None = None) -> InstalledModel:
    """``store.pull`` with a bar on stderr, or its first and last line when stderr is no terminal.

    Ctrl-C and SIGTERM raise Cancelled; what was received is kept.
    """
    if store.is_installed(entry):
        return store.pull(entry)
    try:
        with termination_interrupts(), _drawn_progress() as progress:
            started = time.monotonic()
            model = store.pull(entry, local=local, progress=progress)
            # An editor may have failed to start the daemon for want of this model: let it try again at once.
            reset_backoff(Paths.from_environment())
            progress.note(f"{entry.id}: complete and verified after {time.monotonic() - started:.0f} s")
            return model
    except KeyboardInterrupt:
        raise Cancelled(
            f"the download of {entry.id} was interrupted",
            why=f"{format_bytes(store.staged_bytes(entry))} of {format_bytes(entry.bytes)} are kept",
            fix=f"Type `peft-daemon models pull {entry.id}` to go on",
        ) from None


class _Lines:
    """Progress where nobody watches: notes as lines, no bar."""

    def note(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def advance(self, done: int, total: int) -> None:
        pass


@contextmanager
def _drawn_progress() -> Iterator[DownloadProgress]:
    """A bar with bytes, speed and remaining time on stderr when that is a terminal."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
        yield _Bar(drawing)


class _Bar:
    """Progress as one bar that appears with the first byte; notes scroll by above it."""

    def __init__(self, drawing: bars.Progress) -> None:
        self._drawing = drawing
        self._task: bars.TaskID | None = None

    def note(self, text: str) -> None:
        self._drawing.console.print(text, markup=False, highlight=False)

    def advance(self, done: int, total: int) -> None:
        if self._task is None:
            # Bytes from an earlier pull must not count as speed.
            self._task = self._drawing.add_task("", total=total, completed=done)
        self._drawing.update(self._task, completed=done)


def _settings(*, offline: bool = False) -> settings.Settings:
    return settings.resolve(
        command_line={"offline": True if offline else None},
        project_file=settings.find_project_file(Path.cwd()),
        user_file=Paths.from_environment().config_file,
    ).settings


def _row(entry: ModelEntry, store: ModelStore, installed: InstalledModel | None, chosen: str) -> ModelRow:
    found = installed if installed is not None and installed.sha256 == entry.sha256 else None
    copy = optimized.read_optimized(found.path.parent, entry.sha256) if found else None
    return ModelRow(
        id=entry.id,
        family=entry.family,
        quantization=entry.quantization,
        licence=entry.licence,
        bytes=entry.bytes,
        sha256=entry.sha256,
        context_tokens=entry.context_tokens,
        chosen=entry.id == chosen,
        installed=found is not None,
        staged_bytes=store.staged_bytes(entry),
        path=str(found.path) if found else None,
        source=found.source if found else None,
        verified=found.verified if found else None,
        optimized=copy.recipe if copy else None,
    )


def _print_rows(rows: list[ModelRow], chosen: str, folder: Path) -> None:
    cells = [("model", "size", "quantization", "licence", "state")]
    cells += [(row.id, format_bytes(row.bytes), row.quantization, row.licence, _state(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo(f"\nChosen: {chosen}\nFolder: {folder}")


def _state(row: ModelRow) -> str:
    if row.installed:
        return f"installed, optimized ({row.optimized})" if row.optimized else "installed"
    return f"{row.staged_bytes / row.bytes:.0%} fetched" if row.staged_bytes else "not installed"
