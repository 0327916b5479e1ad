"""``config``: every setting, its value here, and where that value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from peft_cli.output import Json, emit
from peft_core.paths import Paths
from peft_core.settings import describe, find_project_file, resolve


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("config")(show_config)


class Setting(msgspec.Struct, frozen=True):
    """One setting as ``config --json`` prints it."""

    name: str
    value: Any
    source: str
    description: str


def show_config(
    path: Annotated[
        bool, typer.Option("--path", help="Print only where your own settings file is (or would be).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show all settings, their values in this folder, and where each comes from.

    Set one in your own file (TOML, `name = value`), in a project's .peft-daemon.toml (some), or in the environment
    as PEFT_DAEMON_NAME.

    \b
    Example:
      peft-daemon config
      PEFT_DAEMON_THREADS=4 peft-daemon config --json
    """
    paths = Paths.from_environment()
    if path:
        emit({"path": str(paths.config_file)}, as_json=as_json, text=lambda: typer.echo(paths.config_file))
        return
    resolved = resolve(user_file=paths.config_file, project_file=find_project_file(Path.cwd()))
    rows = [
        Setting(name, getattr(resolved.settings, name), resolved.sources[name], describe(name))
        for name in resolved.settings.__struct_fields__
    ]

    def text() -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table("setting", "value", "from", "meaning", title=str(paths.config_file))
        for row in rows:
            table.add_row(row.name, str(row.value), row.source, row.description)
        Console().print(table)

    emit(rows, as_json=as_json, text=text)
