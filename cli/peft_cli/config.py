"""``config``: show the settings, and write one into the user's own file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from peft_cli.output import Json, emit
from peft_core.home_format import record_format, require_known_format
from peft_core.paths import Paths
from peft_core.settings import (
    ENV_PREFIX,
    Settings,
    allowed_values,
    describe,
    find_project_file,
    find_setting,
    parse_value,
    resolve,
)
from peft_core.settings_file import write_setting

app = typer.Typer(rich_markup_mode=None)

SettingName = Annotated[str, typer.Argument(metavar="NAME", help="A setting, as `peft-daemon config` names it.")]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as ``config --json`` prints it."""

    name: str
    value: Any
    source: str
    description: str
    default: Any
    allowed: Mapping[str, Any]
    """What it may be, as JSON Schema says it."""


class ChangedSetting(msgspec.Struct, frozen=True, kw_only=True):
    """What ``config set`` and ``unset`` print with ``--json``."""

    name: str
    value: Any
    """What counts from now on."""
    source: str
    """Where that comes from: an environment variable wins over the file."""
    file: str
    changed: bool
    """Whether the file changed."""


@app.callback(invoke_without_command=True)
def show_config(
    context: typer.Context,
    path: Annotated[
        bool, typer.Option("--path", help="Print only where your own settings file is (or would be).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show all settings, their values in this folder, and where each comes from; `set` and `unset` change one.

    Set one in your own file (TOML, `name = value`), in a project's .peft-daemon.toml (some), or in the environment
    as PEFT_DAEMON_NAME.

    \b
    Example:
      peft-daemon config
      peft-daemon config set threads 4
      PEFT_DAEMON_THREADS=4 peft-daemon config --json
    """
    if context.invoked_subcommand is not None:
        return
    paths = Paths.from_environment()
    if path:
        emit({"path": str(paths.config_file)}, as_json=as_json, text=lambda: typer.echo(paths.config_file))
        return
    rows = read_rows(paths)

    def text() -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table("setting", "value", "from", "meaning", title=str(paths.config_file))
        for row in rows:
            table.add_row(row.name, str(row.value), row.source, row.description)
        Console().print(table)

    emit(rows, as_json=as_json, text=text)


def read_rows(paths: Paths) -> list[Setting]:
    """Return all settings as they count in the current folder."""
    resolved, defaults = resolve(user_file=paths.config_file, project_file=find_project_file(Path.cwd())), Settings()
    return [
        Setting(
            name=name,
            value=getattr(resolved.settings, name),
            source=resolved.sources[name],
            description=describe(name),
            default=getattr(defaults, name),
            allowed=allowed_values(name),
        )
        for name in Settings.__struct_fields__
    ]


@app.command(
    "set",
    epilog="Example: peft-daemon config set threads 4",
    context_settings={"ignore_unknown_options": True},  # -1 is a value
)
def set_value(
    name: SettingName,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its new value; true or false for a switch.")],
    as_json: Json = False,
) -> None:
    """Write a setting into your own file. The daemon takes it over with the next editor or command that uses it."""
    _change(name, parse_value(name, value), as_json=as_json)


@app.command("unset", epilog="Example: peft-daemon config unset threads")
def unset_value(name: SettingName, as_json: Json = False) -> None:
    """Remove a setting from your own file, so that its default counts again."""
    find_setting(name)
    _change(name, None, as_json=as_json)


def _change(name: str, value: str | int | bool | None, *, as_json: bool) -> None:
    paths = Paths.from_environment()
    require_known_format(paths)
    changed = write_setting(paths.config_file, name, value)
    record_format(paths)
    resolved = resolve(user_file=paths.config_file)
    counts, source = getattr(resolved.settings, name), resolved.sources[name]
    told = ChangedSetting(name=name, value=counts, source=source, file=str(paths.config_file), changed=changed)

    def text() -> None:
        typer.echo(f"{name} = {counts} ({source})")
        if source == "environment":
            typer.echo(f"warning: {ENV_PREFIX}{name.upper()} wins over {paths.config_file} in this shell", err=True)

    emit(told, as_json=as_json, text=text)
