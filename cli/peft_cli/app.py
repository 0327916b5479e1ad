"""The ``peft-daemon`` application, made of the commands of all modules."""

from __future__ import annotations

from typing import Annotated

import typer

from peft_cli import (
    adapters,
    bench,
    complete,
    daemon,
    datasets,
    engine,
    evaluate,
    feedback,
    installation,
    lsp,
    models,
    models_add,
    report,
    setup,
    tune,
    upstream,
)
from peft_core import __version__

app = typer.Typer(
    help="A local code-completion service that learns the code it works on.",
    epilog="Begin with `peft-daemon setup`. Exit codes: docs/cli.md",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peft-daemon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the command itself."""


app.command()(setup.setup)
daemon.register(app)
app.command()(installation.doctor)
lsp.register(app)
complete.register(app)
models_add.register(models.app)
app.add_typer(models.app, name="models")
app.add_typer(engine.app, name="engine")
app.add_typer(adapters.app, name="adapters")
app.add_typer(datasets.app, name="datasets")
tune.register(app)
evaluate.register(app)
app.add_typer(report.app, name="report")
app.add_typer(bench.app, name="bench")
app.add_typer(feedback.app, name="feedback")
app.add_typer(upstream.app, name="upstream")
app.command("config")(installation.show_config)
