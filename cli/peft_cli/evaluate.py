"""``evaluate``: compare an adapter with examples in the prompt, and with the base model alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peft_cli.datasets import Columns, Download, parse_columns
from peft_cli.output import EVAL_PACKAGES, RAY_PACKAGES, Json, emit, require_extra, termination_interrupts
from peft_core.errors import InvalidInput, NotFound
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters

if TYPE_CHECKING:
    from peft_evaluation.model import Decoding
    from peft_evaluation.repo_tests.preparation import RepositoryTestsRequest
    from peft_evaluation.runner import EvaluateRequest
    from peft_evaluation.sample import SampleSet
    from peft_evaluation.strategies import ChunkMixture
    from peft_tuning.data.datasets.sources import DataLocations
    from peft_tuning.installation import Installation

LoadItems = Callable[[Callable[[str, int, int], None]], "SampleSet"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.jsonl",
            help="conala, codealpacapy, apps, humaneval, mbpp, a file or folder of your own, or OWNER/NAME of the hub.",
        ),
    ] = None,
    repo: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Fill holes in the held-out code of this repository.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Tune and evaluate a matrix of models, methods, data sets, strategies and seeds (docs/study.md).",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="With --study: measure what it takes, print it, and stop.")
    ] = False,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="zero-shot, icl, rag, adapter:NAME, adapter+rag:NAME; with --repo also alone (no other file), context "
            "and adapter+context:NAME; may be repeated. [default: zero-shot, icl, rag]"
        ),
    ] = None,
    examples: Annotated[
        list[int] | None, typer.Option(help="icl: training examples in the prompt; may be repeated. [default: 3]")
    ] = None,
    neighbours: Annotated[
        list[int] | None, typer.Option(help="rag: most similar examples in the prompt; may be repeated. [default: 3]")
    ] = None,
    retriever: Annotated[
        list[str] | None, typer.Option(help="rag: bm25, dense or gte-small; may be repeated. [default: bm25]")
    ] = None,
    context_tokens: Annotated[
        list[int] | None,
        typer.Option(min=1, max=4096, help="context: most tokens of other files; may be repeated. [default: 300]"),
    ] = None,
    context_of: Annotated[
        list[str] | None,
        typer.Option(help="context: served, signatures or passages; may be repeated. [default: served]"),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="icl: a run for each seed; may be repeated. [default: the study's five]")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Number of sampled answers per item, for pass@k.")] = None,
    temperature: Annotated[float, typer.Option(help="Temperature of --samples.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Top-p of --samples.")] = 0.95,
    beams: Annotated[int | None, typer.Option(min=1, max=64, help="Number of beams of a search, for EM@k.")] = None,
    pass_at: Annotated[
        list[int] | None, typer.Option(metavar="K", help="Fail unless pass@K can be measured; may be repeated.", min=1)
    ] = None,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run generated code without a sandbox: it can do what you can.")
    ] = False,
    run_tests: Annotated[
        bool,
        typer.Option("--run-tests", help="With --repo: run its own tests with each answer in place, in a sandbox."),
    ] = False,
    pytest_args: Annotated[
        str | None, typer.Option(metavar="ARGS", help="With --run-tests: which tests, e.g. 'tests/unit -k fast'.")
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(
            help="With --run-tests: an interpreter with pytest and all that your code needs. "
            "[default: .venv of the repository, else the one that runs this]"
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many items, the first ones.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer; default: the data set's.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="llamacpp, as served on a CPU, or torch, which answers many at once; default: the setting."),
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, max=512, help="Items answered at the same time; default: a fast number.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Share the items among the nodes of the Ray cluster with this head."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data set's files are, instead of the cache.")] = None,
    column: Columns = None,
    download: Download = False,
    base: Annotated[str | None, typer.Option(metavar="ID", help="Base model; default: the setting `model`.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the evaluation; default: the data set's.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted evaluation, or add strategies to it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare strategies: the model alone, with examples, with similar examples, with an adapter.

    All strategies answer the same items, in the same prompt format and budget. Ctrl-C loses at most the current item;
    the same command with --resume continues.

    \b
    Example:
      peft-daemon evaluate --dataset conala --strategy zero-shot --strategy adapter:conala --limit 50
      peft-daemon evaluate --repo . --strategy zero-shot --strategy adapter:mine --run-tests
      peft-daemon evaluate --study conala-small.toml --plan
    """
    require_extra("evaluation", "eval", EVAL_PACKAGES)
    if ray is not None:
        require_extra("--ray", "ray", RAY_PACKAGES)
    if study is not None:
        _refuse_beside_study(context)
        _study(study, ray, plan=plan, as_json=as_json)
        return
    if plan:
        raise InvalidInput("--plan goes with --study only", fix="Use `--limit` to try an evaluation out")
    from peft_cli.progress_view import NoteLines
    from peft_evaluation.runner import EvaluateRequest
    from peft_evaluation.strategies import EXAMPLES, NEIGHBOURS, SEEDS, ChunkMixture, Sweep
    from peft_tuning.data.datasets.sources import DataLocations
    from peft_tuning.data.repository.chunks import CONTEXT_TOKENS
    from peft_tuning.installation import Installation

    paths = Paths.from_environment()
    installation = Installation(
        settings=resolve(command_line={"model": base, "engine": engine}, user_file=paths.config_file).settings,
        paths=paths,
    )
    locations = DataLocations.resolve(
        installation.settings, paths, data=data, progress=NoteLines(), fetch=download, columns=parse_columns(column)
    )
    default_name, load = _source(locations, dataset, repo)
    own_tests = _own_tests(repo, pytest_args, python, asked=run_tests)
    request = EvaluateRequest(
        name=name or default_name,
        load_items=load,
        strategies=tuple(strategy or ("zero-shot", "icl", "rag")),
        sweep=Sweep(
            examples=tuple(examples or (EXAMPLES,)),
            neighbours=tuple(neighbours or (NEIGHBOURS,)),
            retrievers=tuple(retriever or ("bm25",)),
            seeds=tuple(seed or SEEDS),
            context_tokens=tuple(context_tokens or (CONTEXT_TOKENS,)),
            mixtures=tuple(map(_mixture, context_of or (ChunkMixture.SERVED,))),
        ),
        decoding=_decoding(samples, temperature, top_p, beams),
        limit=limit,
        max_tokens=max_tokens,
        at_once=at_once,
        allow_unsandboxed=allow_unsandboxed,
        own_tests=own_tests,
        ray=ray,
        pass_at=tuple(pass_at or ()),
        resume=resume,
        command=("peft-daemon", *sys.argv[1:]),
    )
    # The package's adapters may not be imported yet. If the base is missing, the run itself reports it.
    with suppress(NotFound):
        update_shipped_adapters(installation.settings, paths)
    _run(request, installation, as_json=as_json)


def _mixture(word: str) -> ChunkMixture:
    from peft_evaluation.strategies import ChunkMixture

    try:
        return ChunkMixture(word)
    except ValueError:
        raise InvalidInput(f"there is no --context-of {word}", why=f"there are {', '.join(ChunkMixture)}") from None


def _decoding(samples: int | None, temperature: float, top_p: float, beams: int | None) -> Decoding:
    from peft_evaluation.model import Beams, Greedy, Samples

    if samples is not None and beams is not None:
        raise InvalidInput("either --samples or --beams", fix="Leave one of them out")
    if samples is not None:
        return Samples(samples, temperature, top_p)
    return Greedy() if beams is None else Beams(beams)


def _own_tests(
    repo: Path | None, arguments: str | None, python: Path | None, *, asked: bool
) -> RepositoryTestsRequest | None:
    from peft_evaluation.repo_tests.preparation import RepositoryTestsRequest

    if not asked:
        if arguments is not None or python is not None:
            raise InvalidInput("--pytest-args and --python need --run-tests", fix="Add --run-tests")
        return None
    if repo is None:
        raise InvalidInput(
            "--run-tests is for a repository", why="a data set has its own tests or none", fix="Give --repo FOLDER"
        )
    try:
        words = tuple(shlex.split(arguments or ""))
    except ValueError as error:
        raise InvalidInput(f"cannot read --pytest-args {arguments}", why=str(error), fix="Close the quotes") from None
    return RepositoryTestsRequest(repository=repo, arguments=words, python=python)


def _source(locations: DataLocations, dataset: str | None, repo: Path | None) -> tuple[str, LoadItems]:
    """Return a word for the evaluation's name, and a function that loads its samples."""
    if (dataset is None) == (repo is None):
        raise InvalidInput(
            "say what to evaluate on",
            why="exactly one of --dataset, --repo and --study",
            fix="e.g. `peft-daemon evaluate --dataset conala`",
        )
    from peft_tuning.data.datasets.sources import SEED

    if repo is not None:
        from peft_evaluation.datasets.catalogue import load_repository

        return repo.resolve().name, lambda on_progress: load_repository(repo, SEED, on_progress)
    from peft_evaluation.datasets import catalogue
    from peft_tuning.data.datasets.catalogue import label

    return label(str(dataset)), lambda on_progress: catalogue.load(str(dataset), locations, seed=SEED)


WITH_STUDY = ("study", "plan", "ray", "resume", "as_json")
"""Options of ``evaluate`` that go with --study; it always resumes."""


def _refuse_beside_study(context: typer.Context) -> None:
    """Raise InvalidInput if an option is given that the study's file decides."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name is not None
        and option.name not in WITH_STUDY
        and (source := context.get_parameter_source(option.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise InvalidInput(
            f"{', '.join(given)} cannot be given with --study",
            why="the study's file says it",
            fix="Write it into the file; docs/study.md lists its keys",
        )


def _study(file: Path, ray: str | None, *, plan: bool, as_json: bool) -> None:
    from rich.console import Console

    from peft_cli.progress_view import JsonLines
    from peft_cli.study_view import StudyView, print_forecast
    from peft_evaluation.study.definition import read_study
    from peft_evaluation.study.forecast import forecast
    from peft_evaluation.study.progress import StudyRequest
    from peft_evaluation.study.runner import run_study

    paths = Paths.from_environment()
    request = StudyRequest(
        study=read_study(file),
        settings=resolve(user_file=paths.config_file).settings,
        paths=paths,
        ray=ray,
        command=shlex.join(("peft-daemon", *sys.argv[1:])),
    )
    with termination_interrupts():
        if as_json and not plan:
            run_study(request, JsonLines(sys.stdout))
            return
        with StudyView(Console(stderr=True)) as view:
            if not plan:
                run_study(request, view)
                return
            found = forecast(request, view)
    emit(found, as_json=as_json, text=lambda: print_forecast(Console(), found))


def _run(request: EvaluateRequest, installation: Installation, *, as_json: bool) -> None:
    from rich.console import Console

    from peft_cli.evaluation_view import evaluation_view
    from peft_cli.progress_view import JsonLines
    from peft_evaluation import runner

    if as_json:
        runner.evaluate(request, installation, JsonLines(sys.stdout))
        return
    with evaluation_view(Console(stderr=True)) as show:
        runner.evaluate(request, installation, show)
