"""``bench``: measure speed and quality of what is suggested, while somebody types and in the middle of changes."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from peft_cli.output import Json, require_extra, termination_interrupts
from peft_core.errors import InvalidInput
from peft_core.paths import Paths
from peft_core.settings import resolve

RunName = Annotated[str | None, typer.Option(help="Name of the run; default: the time of its start.")]
RunFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder for the run, instead of one in the data folder.")
]
ResumeRun = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, or add policies to it.")]

app = typer.Typer(help="Measure this installation.", no_args_is_help=True, rich_markup_mode=None)


@app.command("typing")
def typing(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter traces: less than five minutes.")] = False,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="ours, ours-all, ours-base, llama.vscode; may be repeated. [default: ours, llama.vscode]"),
    ] = None,
    traces: Annotated[
        int | None, typer.Option(min=1, max=200, help="Number of traces. [default: 12; with --quick: 2]")
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(min=0, max=10, help="Number of files that are opened and reopened. [default: 2; with --quick: 1]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the files, places, mistakes and rhythm.")] = 0,
    source: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Type files of this folder instead of installed packages; repeatable."),
    ] = None,
    name: RunName = None,
    output: RunFolder = None,
    resume: ResumeRun = False,
    as_json: Json = False,
) -> None:
    """Replay recorded editing against peft-daemon and against other completers' policies, in real time.

    All get the same engine, weights and keystrokes, and take turns. A full run takes about half an hour, in which this
    machine should do nothing else. Ctrl-C loses at most the current replay; --resume continues.

    \b
    Example:
      peft-daemon bench typing --quick
      peft-daemon bench typing --source ~/code/mine --name mine --policy ours --policy ours-base
    """
    require_extra("the typing benchmark", "eval", ("rapidfuzz", "scipy", "jinja2"))
    from rich.console import Console

    from peft_cli.evaluation_view import typing_view
    from peft_cli.progress_view import JsonLines
    from peft_evaluation.typing_benchmark import run
    from peft_evaluation.typing_benchmark.policies import catalogue
    from peft_evaluation.typing_benchmark.trace_maker import FULL, QUICK
    from peft_tuning.installation import Installation

    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    amount = QUICK if quick else FULL
    request = run.BenchRequest(
        folder=_folder("typing", paths, name, output, resume=resume),
        policies=catalogue.choose_policies(policy or catalogue.DEFAULT),
        amount=amount if traces is None else replace(amount, traces=traces),
        scenes=(1 if quick else 2) if scenes is None else scenes,
        quick=quick,
        seed=seed,
        sources=tuple(source or ()),
        resume=resume,
        command=shlex.join(("peft-daemon", *sys.argv[1:])),
    )
    # A daemon outlives its starter, so it must be stopped also if this process is terminated.
    with termination_interrupts():
        if as_json:
            run.bench(request, installation, JsonLines(sys.stdout))
            return
        with typing_view(Console(stderr=True)) as show:
            run.bench(request, installation, show)


@app.command("edits")
def edits(
    source: Annotated[
        list[Path],
        typer.Option(
            metavar="FOLDER", help="A clone with its history, from whose newest commits is asked; repeatable."
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="20 scenarios with an answer and 20 without, of fewer commits.")
    ] = False,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="ours, ours-all, fill, nothing, model=ID, adapter=NAME; may be repeated. [default: the first four]"
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, max=2000, help="Scenarios with an answer, and as many without. [default: 220; with --quick: 20]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenarios.")] = 0,
    name: RunName = None,
    output: RunFolder = None,
    resume: ResumeRun = False,
    as_json: Json = False,
) -> None:
    """Ask for next edits in the middle of real commits, where one is right and where none is.

    Policies get the same scenarios, and take turns. Figures are of quality and of waiting; docs/next-edit.md explains
    them. Ctrl-C loses at most the current answer; --resume continues.

    \b
    Example:
      peft-daemon bench edits --source ~/code/mine --quick
      peft-daemon bench edits --source ~/code/mine --source ~/code/yours --name mine --policy ours --policy fill
    """
    require_extra("the benchmark of next edits", "eval", ("rapidfuzz", "scipy", "jinja2"))
    from rich.console import Console

    from peft_cli.edit_bench_view import edits_view
    from peft_cli.progress_view import JsonLines
    from peft_evaluation.edit_benchmark import policies, run
    from peft_evaluation.edit_benchmark.scenarios import FULL, QUICK
    from peft_tuning.installation import Installation

    paths = Paths.from_environment()
    installation = Installation(settings=resolve(user_file=paths.config_file).settings, paths=paths)
    amount = QUICK if quick else FULL
    request = run.EditBenchRequest(
        folder=_folder("edits", paths, name, output, resume=resume),
        policies=policies.choose_edit_policies(policy or policies.DEFAULT),
        amount=amount if limit is None else replace(amount, scenarios=limit),
        sources=tuple(source),
        quick=quick,
        seed=seed,
        resume=resume,
        command=shlex.join(("peft-daemon", *sys.argv[1:])),
    )
    # A daemon outlives its starter, so it must be stopped also if this process is terminated.
    with termination_interrupts():
        if as_json:
            run.bench_edits(request, installation, JsonLines(sys.stdout))
            return
        with edits_view(Console(stderr=True)) as show:
            run.bench_edits(request, installation, show)


def _folder(kind: str, paths: Paths, name: str | None, output: Path | None, *, resume: bool) -> Path:
    """Return the folder of a run.

    Raises InvalidInput for a name that is no folder's, or ``resume`` without a name.
    """
    from peft_evaluation.typing_benchmark.report import TYPING

    if output is not None:
        return output.absolute()
    if name is None:
        if resume:
            raise InvalidInput("say which run to continue", fix="Give its `--name`, or its `--output`")
        name = f"{kind}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if name != Path(name).name or name in ("", ".", ".."):
        raise InvalidInput(f"'{name}' cannot be a run's name", fix="Give a word, e.g. `--name mine`")
    return paths.data / TYPING.runs / name
