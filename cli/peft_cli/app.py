"""The ``peft-daemon`` application, made of the commands of all modules, or of those that one call needs.

Loading all modules takes twice as long as most commands, so a call loads only the one of its command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated

import typer

from peft_core import __version__
from peft_core.home_format import record_format, require_known_format
from peft_core.paths import Paths


@dataclass(frozen=True)
class Commands:
    """Commands that the function ``register`` of a module adds."""

    module: str
    names: tuple[str, ...]

    def add_to(self, app: typer.Typer) -> None:
        """Load the module and add its commands."""
        register: Callable[[typer.Typer], None] = import_module(f"peft_cli.{self.module}").register
        register(app)


@dataclass(frozen=True)
class Group:
    """A group of commands, which is the ``app`` of a module."""

    module: str
    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The command of the group."""
        return (self.name,)

    def add_to(self, app: typer.Typer) -> None:
        """Load the module and add its group."""
        app.add_typer(import_module(f"peft_cli.{self.module}").app, name=self.name)


Part = Commands | Group
PARTS: tuple[Part, ...] = (
    Commands("setup", ("setup",)),
    Commands("daemon", ("serve", "start", "stop", "status")),
    Commands("why", ("why",)),
    Commands("installation", ("doctor",)),
    Commands("lsp", ("lsp",)),
    Commands("complete", ("generate", "complete")),
    Group("models_add", "models"),
    Group("engine", "engine"),
    Group("adapters", "adapters"),
    Group("datasets", "datasets"),
    Commands("tune", ("tune",)),
    Group("learn", "learn"),
    Commands("evaluate", ("evaluate",)),
    Group("report", "report"),
    Group("bench", "bench"),
    Group("feedback", "feedback"),
    Group("upstream", "upstream"),
    Group("config", "config"),
)
"""In the order of ``--help``."""


def application(parts: Sequence[Part] = PARTS) -> typer.Typer:
    """Return the application with the commands of these parts."""
    app = typer.Typer(
        help="A local code-completion service that learns the code it works on.",
        epilog="Begin with `peft-daemon setup`. Exit codes: docs/cli.md",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    # Of a single command typer would make an application without the command's name.
    app.callback()(_options)
    for part in parts:
        part.add_to(app)
    return app


def parts_of(arguments: Sequence[str]) -> Sequence[Part]:
    """Return the part that these arguments need; all of them if they do not begin with a command."""
    found = [part for part in PARTS if arguments and arguments[0] in part.names]
    return found or PARTS


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peft-daemon {__version__}")
        raise typer.Exit


OF_ANY_HOME = frozenset({"serve", "start", "stop", "status", "why", "doctor", "lsp", "generate", "complete", "config"})
"""Commands that leave the files of a home to the daemon, which refuses those of a newer version by itself."""


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""
    if context.invoked_subcommand not in OF_ANY_HOME and "--help" not in sys.argv:
        paths = Paths.from_environment()
        require_known_format(paths)
        record_format(paths)
        # Where the command makes the first file of a home.
        context.call_on_close(partial(record_format, paths))
