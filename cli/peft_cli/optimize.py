"""``peft-daemon models optimize``: a faster copy of a model for this processor, or the reasons against it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from peft_cli.interrupts import termination_interrupts
from peft_cli.output import Json, emit, run
from peft_core.errors import Cancelled, Conflict, NotFound
from peft_core.files import format_bytes, is_full
from peft_core.http_download import NoProgress
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.models import catalogue
from peft_daemon.models.catalogue import ModelEntry
from peft_daemon.models.optimized import remove_optimized
from peft_daemon.models.store import ModelStore, open_store

if TYPE_CHECKING:
    from peft_daemon.requantize.optimizer import Candidate, JudgingOptions, OptimizationResult, OptimizeEvent

_SECONDS_BETWEEN_LINES = 2.0


def register(app: typer.Typer) -> None:
    """Add the command to ``models``."""
    app.command("optimize", epilog="Example: peft-daemon models optimize --dry-run")(optimize)


def optimize(
    model_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Catalogue id; without it the chosen model.", show_default=False)
    ] = "",
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="RECIPE", help="iq4_nl, iq4_nl-mlp, q4_0 or q8_0; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and tell, but keep nothing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the copy: the original serves again.")] = False,
    as_json: Json = False,
) -> None:
    """Look for a copy of the model that is faster on this processor and as good, and serve that.

    Takes some minutes and about 1 GB of disk meanwhile. Adapters stay valid. An interrupted run is gone on with.
    """
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    entry, store = catalogue.get(model_id or settings.model), open_store(settings, paths)
    if remove:
        _remove(store, entry, as_json=as_json)
        return
    from peft_daemon.requantize.copy import DEFAULT_RECIPES, get_recipe
    from peft_daemon.requantize.optimizer import Optimizer

    tried = tuple(get_recipe(recipe) for recipe in dict.fromkeys(candidate or DEFAULT_RECIPES))
    with store.locked(entry, NoProgress()):
        optimizer = Optimizer(store, entry, settings, _judging(settings, paths, entry), _Lines())
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
    emit(outcome, as_json=as_json, text=lambda: _print(outcome, dry_run))


def _remove(store: ModelStore, entry: ModelEntry, *, as_json: bool) -> None:
    with store.locked(entry, NoProgress()):
        freed = remove_optimized(store.path(entry).parent)
    if not freed:
        raise NotFound(f"there is no optimized copy of {entry.id}", fix="Make one with `peft-daemon models optimize`")
    emit(
        {"model": entry.id, "freed_bytes": freed},
        as_json=as_json,
        text=lambda: typer.echo(f"the copy of {entry.id} is deleted, {format_bytes(freed)} are free again; {_RESTART}"),
    )


_RESTART = "a running daemon uses its file until `peft-daemon stop`"


def _judging(settings: Settings, paths: Paths, entry: ModelEntry) -> JudgingOptions:
    """With the adapter that completes code everywhere, as the daemon would."""
    from peft_core.api_types import LLAMACPP, Task
    from peft_daemon.adapters.registry import AdapterRegistry
    from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
    from peft_daemon.requantize.optimizer import JudgingOptions

    update_shipped_adapters(settings, paths)
    registry = AdapterRegistry(paths.adapters)
    manifest = registry.resolve(Task.FILL)
    if manifest is None or manifest.base_sha256 != entry.sha256 or LLAMACPP not in manifest.engines:
        return JudgingOptions()
    return JudgingOptions(adapter=manifest.name, lease=registry.lease(manifest, manifest.scale))


class _Lines:
    """Progress as lines on stderr: a step's beginning and end, on a terminal also one every two seconds."""

    def __init__(self) -> None:
        self._step, self._last = "", 0.0

    def __call__(self, event: OptimizeEvent) -> None:
        begins, ends, now = event.step != self._step, event.done >= event.total, time.monotonic()
        if begins or ends or (sys.stderr.isatty() and now - self._last > _SECONDS_BETWEEN_LINES):
            sys.stderr.write(f"{event.step}: {event.done / event.total:.0%}\n")
            sys.stderr.flush()
            self._step, self._last = event.step, now


def _print(outcome: OptimizationResult, dry_run: bool) -> None:
    cells: list[tuple[str, ...]] = [
        ("recipe", "size", "reading", "writing", "loss (bound)", "lines (original)", "verdict")
    ]
    cells += [_cells(each) for each in outcome.candidates]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if outcome.kept:
        typer.echo(f"\n{outcome.kept} serves from the next start on ({_RESTART}): {outcome.path}")
    else:
        typer.echo("\nNothing was kept" + (", as asked" if dry_run else ": no candidate is faster and as good"))


def _cells(each: Candidate) -> tuple[str, ...]:
    speeds = (each.recipe, format_bytes(each.bytes), f"{each.reading:.2f}x", f"{each.writing:.2f}x")
    if (f := each.figures) is None:
        return (*speeds, "", "", each.verdict)
    return (
        *speeds,
        f"{f.loss:+.3f} ({f.loss_bound:+.3f})",
        f"{f.right} ({f.right_original}) of {f.lines}",
        each.verdict,
    )
