"""``setup``: choose the base model for this machine, fetch it, and start the daemon with it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import msgspec
import typer

from peft_cli.engine import measure_builds
from peft_cli.models import pull_with_progress
from peft_cli.output import Json, emit, run
from peft_core.api_types import Task
from peft_core.errors import InvalidInput, PeftDaemonError
from peft_core.files import format_bytes
from peft_core.paths import Paths
from peft_core.settings import ENV_PREFIX, Settings, resolve
from peft_core.settings_file import write_setting
from peft_core.status_types import DaemonStatus
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import shipped_adapter_names, update_shipped_adapters
from peft_daemon.models.catalogue import entries, open_catalogue
from peft_daemon.models.choice import ModelOffer, ModelPlan, ModelState, plan_models, token_cost
from peft_daemon.models.store import ModelStore, open_store

MODEL_VARIABLE = f"{ENV_PREFIX}MODEL"


class SetupResult(msgspec.Struct, frozen=True):
    """What ``setup --json`` prints."""

    model: str
    path: str
    fetched: bool
    adapters: tuple[str, ...]
    """Adapters of the package that were imported now."""
    daemon: str
    seconds: float
    reason: str
    """Why this model."""
    settings_file: str
    """Where the choice was written; empty: nothing was chosen."""
    plan: ModelPlan | None
    """What there was to choose from; null: the machine was not measured."""


class _ModelChoice(msgspec.Struct, frozen=True):
    model: str
    reason: str
    write: bool
    """Whether it belongs into the settings."""
    plan: ModelPlan | None = None


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(setup)


def setup(
    model: Annotated[str | None, typer.Option(help="Take this base model, a catalogue id; measure nothing.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take the recommended model without asking.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only measure and show the models; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Choose the base model for this machine, fetch and verify it, and start the daemon with it.

    On a terminal it measures the machine (10 seconds at most), shows three models and asks. Elsewhere, or with
    --json, it takes the model that the settings name. A choice is written to your settings file. Does only what is
    missing, so it can be run again at any time, also to choose another model.

    \b
    Example:
      peft-daemon setup
      peft-daemon setup --plan
      peft-daemon setup --model qwen2.5-coder-1.5b-instruct
    """
    began = time.perf_counter()
    if plan and (model or yes):
        raise InvalidInput("`--plan` changes nothing", fix="Leave out `--model` and `--yes`, or leave out `--plan`")
    paths = Paths.from_environment()
    settings = resolve(user_file=paths.config_file).settings
    if plan:
        shown = make_plan(settings, paths)
        emit(shown, as_json=as_json, text=lambda: _print_plan(shown, err=False))
        return
    choice = _choose(settings, paths, model, yes=yes, as_json=as_json)
    result = _install(choice, settings, paths, began)
    emit(result, as_json=as_json, text=lambda: _print_result(result, paths))


def make_plan(settings: Settings, paths: Paths) -> ModelPlan:
    """Measure this machine, and return the models to offer with what to expect of each.

    Raises InvalidInput where the engine is not installed, EngineFailed where it cannot start.
    """
    from peft_daemon.engines.llamacpp.choice import with_chosen_program
    from peft_daemon.engines.machine import measure_machine

    store, default = open_store(settings, paths), entries()[0]
    added = [each for each in open_catalogue(paths).user_entries() if each.id == settings.model]
    sha256 = next((each.sha256 for each in (*entries(), *added) if each.id == settings.model), default.sha256)
    measured = with_chosen_program(settings, paths, sha256)
    quantizations = list(dict.fromkeys(token_cost(each).quantization for each in entries()))
    machine = run(measure_machine(measured, store.folder, quantizations))
    states = [
        ModelState(
            entry=each,
            installed=(installed := store.is_installed(each)),
            in_use=installed and each.id == settings.model,
            missing_bytes=0 if installed else each.bytes - store.staged_bytes(each),
            adapters=shipped_adapter_names(each.sha256),
        )
        for each in (*entries(), *added)
    ]
    return plan_models(states, machine, default.id)


def _choose(settings: Settings, paths: Paths, model: str | None, *, yes: bool, as_json: bool) -> _ModelChoice:
    """Return the model to take: the named one, the recommended one, the answer of the user, or that of the settings."""
    if model is not None:
        return _ModelChoice(open_catalogue(paths).get(model).id, "named with --model", write=True)
    if not yes and (as_json or not _is_terminal()):
        typer.echo(
            f"taking {settings.model}, as the settings say; `peft-daemon setup --plan` shows what else fits", err=True
        )
        return _ModelChoice(settings.model, "the settings name it", write=False)
    typer.echo("measuring this machine (10 seconds at most)", err=True)
    plan = make_plan(settings, paths)
    _print_plan(plan, err=True)
    if yes:
        return _ModelChoice(plan.recommended, f"recommended: {plan.reason}", write=True, plan=plan)
    ids = [each.id for each in plan.models]
    if len(ids) < 2:
        return _ModelChoice(plan.recommended, f"recommended: {plan.reason}", write=True, plan=plan)
    default = ids.index(plan.in_use if plan.in_use in ids else plan.recommended) + 1
    chosen = typer.prompt("Which one?", default=str(default), value_proc=partial(_numbered, ids), err=True)
    reason = f"recommended: {plan.reason}" if chosen == plan.recommended else "chosen"
    return _ModelChoice(chosen, reason, write=True, plan=plan)


def _numbered(ids: Sequence[str], answer: str) -> str:
    """Return the model with this number; raises BadParameter, after which the question is asked again."""
    if answer.strip() in (numbers := [str(number) for number in range(1, len(ids) + 1)]):
        return ids[numbers.index(answer.strip())]
    raise typer.BadParameter(f"type a number from 1 to {len(ids)}")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _install(choice: _ModelChoice, before: Settings, paths: Paths, began: float) -> SetupResult:
    settings = resolve(command_line={"model": choice.model}, user_file=paths.config_file).settings
    store, by_task = open_store(settings, paths), open_catalogue(paths).by_task(settings)
    entry = by_task[Task.FILL]
    missing = not store.is_installed(entry)
    for each in by_task.values():
        pull_with_progress(store, each)
    # Before the daemon starts, so that its first request finds them.
    new = update_shipped_adapters(settings, paths)
    # So that it starts with the llama.cpp that is the fastest with this model.
    measure_builds(settings, paths)
    # Also before: an editor that finds the daemon with other settings than the file's would restart it.
    if choice.write:
        write_setting(paths.config_file, "model", entry.id)
    try:
        status = run(_start_daemon(settings, paths))
    except PeftDaemonError:
        if choice.write and before.model != entry.id and _is_usable(before, paths, store):
            write_setting(paths.config_file, "model", before.model)
        raise
    return SetupResult(
        entry.id,
        str(store.path(entry)),
        missing,
        tuple(manifest.name for manifest in new),
        status.address,
        time.perf_counter() - began,
        choice.reason,
        str(paths.config_file) if choice.write else "",
        choice.plan,
    )


def _is_usable(settings: Settings, paths: Paths, store: ModelStore) -> bool:
    return store.is_installed(open_catalogue(paths).get(settings.model))


async def _start_daemon(settings: Settings, paths: Paths) -> DaemonStatus:
    from peft_daemon.client import DaemonClient

    async with await DaemonClient.connect(settings, paths) as client:
        return await client.wait_ready(120)


def _print_result(result: SetupResult, paths: Paths) -> None:
    typer.echo(f"model    {result.model} ({'fetched and verified' if result.fetched else 'already here'})")
    if result.settings_file:
        typer.echo(f"settings {result.settings_file} names it")
        if os.environ.get(MODEL_VARIABLE) not in (None, "", result.model):
            typer.echo(f"warning  {MODEL_VARIABLE}={os.environ[MODEL_VARIABLE]} wins over that file in this shell")
    registry = AdapterRegistry(paths.adapters)
    in_use = {manifest.digest for manifest in registry.in_use()}
    for name in result.adapters:
        manifest = registry.get(name)
        how = "" if manifest.digest in in_use else f"; not in use until `peft-daemon adapters use {name}`"
        typer.echo(f"adapter  {name}, for {' and '.join(manifest.tasks)}{how}")
    typer.echo(f"daemon   {result.daemon}, ready after {result.seconds:.1f} s")


def _print_plan(plan: ModelPlan, *, err: bool) -> None:
    """Print the machine, the models in a table, and which is recommended."""
    m = plan.machine
    typer.echo(
        f"{m.processor}, {m.threads} threads, {format_bytes(m.memory_bytes)} of memory "
        f"({format_bytes(m.available_bytes)} free), {format_bytes(m.disk_bytes)} of disk free, "
        f"{m.gpu or 'no graphics card found'}; measured with {m.engine} in {m.measured_s:.0f} s\n",
        err=err,
    )
    cells: list[tuple[str, ...]] = [
        ("", "model", "size", "memory", "first suggestion", "writes", "holes", "licence", "")
    ]
    cells += [_cells(number, each) for number, each in enumerate(plan.models, start=1)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), err=err)
    typer.echo("", err=err)
    for source in dict.fromkeys(each.fill_score_source for each in plan.models if each.fill_score is not None):
        typer.echo(f"holes: filled exactly, as published: {source}", err=err)
    for each in plan.models:
        if each.adapters and len(plan.models) > 1:
            typer.echo(f"the package's adapters ({', '.join(each.adapters)}) fit {each.id} only", err=err)
    typer.echo(f"recommended: {plan.recommended}, {plan.reason}", err=err)


def _cells(number: int, offer: ModelOffer) -> tuple[str, ...]:
    state = [
        *(["recommended"] if offer.recommended else []),
        *(["in use"] if offer.in_use else ["installed"] if offer.installed else []),
    ]
    return (
        str(number),
        offer.id,
        format_bytes(offer.bytes),
        format_bytes(offer.memory_bytes),
        "" if offer.first_suggestion_s is None else f"{offer.first_suggestion_s:.1f} s",
        "" if offer.writing is None else f"{offer.writing:.{0 if offer.writing >= 10 else 1}f} tok/s",
        "" if offer.fill_score is None else f"{offer.fill_score:.0%}",
        offer.licence,
        ", ".join(state),
    )
