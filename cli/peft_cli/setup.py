"""``setup``: everything between installation and the first completion, in one command."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from peft_cli.models import pull_with_progress
from peft_cli.output import Json, emit, run
from peft_core.api_types import DaemonStatus
from peft_core.paths import Paths
from peft_core.settings import Settings, resolve
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_daemon.models import catalogue
from peft_daemon.models.store import open_store


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(setup)


class SetUp(msgspec.Struct, frozen=True):
    """What ``setup --json`` prints."""

    model: str
    path: str
    fetched: bool
    adapters: tuple[str, ...]
    """Of those that come with the package, what was imported now."""
    daemon: str
    seconds: float


def setup(
    model: Annotated[str | None, typer.Option(help="Base model: a catalogue id.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch and verify the base model, import the package's adapters, start the daemon and wait until it answers.

    Does only what is still missing, so it can be run again at any time.

    \b
    Example:
      peft-daemon setup
      peft-daemon setup --model qwen2.5-coder-1.5b-instruct
    """
    began = time.perf_counter()
    paths = Paths.from_environment()
    settings = resolve(command_line={"model": model}, user_file=paths.config_file).settings
    store, entry = open_store(settings, paths), catalogue.get(settings.model)
    missing = not store.is_installed(entry)
    if missing:
        pull_with_progress(store, entry)
    # Here rather than by the daemon that starts next: the first request finds them.
    new = update_shipped_adapters(settings, paths)
    in_use = AdapterRegistry(paths.adapters).in_use()
    status = run(_start(settings, paths))
    result = SetUp(
        entry.id,
        str(store.path(entry)),
        missing,
        tuple(manifest.name for manifest in new),
        status.address,
        time.perf_counter() - began,
    )

    def text() -> None:
        typer.echo(f"model    {result.model} ({'fetched and verified' if missing else 'already here'})")
        for manifest in new:
            serves = any(manifest.digest == each.digest for each in in_use)
            how = "" if serves else f"; not in use until `peft-daemon adapters use {manifest.name}`"
            typer.echo(f"adapter  {manifest.name}, for {' and '.join(manifest.tasks)}{how}")
        typer.echo(f"daemon   {result.daemon}, ready after {result.seconds:.1f} s")

    emit(result, as_json=as_json, text=text)


async def _start(settings: Settings, paths: Paths) -> DaemonStatus:
    from peft_daemon.client import DaemonClient

    async with await DaemonClient.connect(settings, paths) as client:
        return await client.wait_ready(120)
