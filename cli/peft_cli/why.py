"""``why``: why there was a suggestion in the editor, or none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from peft_cli.output import Json, emit, run
from peft_core.decisions import MAX_DECISIONS, WhyAnswer, WhyQuery, why_text
from peft_core.errors import Unavailable
from peft_core.paths import Paths


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(why)


def why(
    last: Annotated[
        int, typer.Option("--last", help="List so many of the last requests instead.", min=0, max=MAX_DECISIONS)
    ] = 0,
    file: Annotated[Path | None, typer.Option("--file", help="Tell of this document only.")] = None,
    as_json: Json = False,
) -> None:
    """Say why there was a suggestion in the editor, or none, and what to do; exit code 6 when no daemon runs.

    The daemon keeps the last 200 decisions in memory, without any code.

    \b
    Example:
      peft-daemon why
      peft-daemon why --last 20
      peft-daemon why --file src/app.py --json
    """
    from peft_daemon.lifecycle.failed_starts import read_failed_starts
    from peft_daemon.lifecycle.runtime_info import find_running_daemon

    paths = Paths.from_environment()
    if find_running_daemon(paths) is None:
        failed = read_failed_starts(paths, time.time()).recent
        cause = "it stopped, or nobody started it"
        if failed:
            error = failed[-1].error
            cause = f"its last start failed: {error.message if error else failed[-1].lines}"
        raise Unavailable(
            "no daemon runs, so nothing is suggested",
            why=cause,
            fix="`peft-daemon start` starts it; editors do so by themselves",
        )
    answer = run(_ask(paths, WhyQuery(last=last, file=str(file.absolute()) if file else "")))
    emit(answer, as_json=as_json, text=lambda: typer.echo(why_text(answer)))


async def _ask(paths: Paths, query: WhyQuery) -> WhyAnswer:
    from peft_daemon.client import DaemonClient

    async with await DaemonClient.connect(paths=paths, start=False) as client:
        return await client.why(query)
