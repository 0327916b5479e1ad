"""``peft-daemon tune``: make an adapter from a data set, a file of examples or a repository."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from peft_cli.datasets import Columns, Download, parse_columns
from peft_cli.output import TUNE_PACKAGES, emit, parse_duration, require_extra
from peft_core.child_main import follow_parent
from peft_core.errors import InvalidInput, NotFound, Unavailable
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.adapters.manifest import derive_name
from peft_daemon.adapters.shipped_adapters import shipped_adapter_names, update_shipped_adapters

if TYPE_CHECKING:
    from peft_core.tasks import OnProgress
    from peft_tuning.data.datasets.sources import DataLocations
    from peft_tuning.data.examples import DataSet
    from peft_tuning.events import Loading
    from peft_tuning.installation import Installation
    from peft_tuning.run import TuneRequest
    from peft_tuning.start import StartingPoint


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(tune)


def tune(
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.jsonl",
            help="A data set of `peft-daemon datasets list`, your own file or folder, or OWNER/NAME of the hub.",
        ),
    ] = None,
    repo: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Tune on the code of this git repository.")
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER[=LICENCE]", help="Tune on the sources below a plain folder; may be repeated."),
    ] = None,
    edits: Annotated[
        bool,
        typer.Option("--edits", help="With --repo or --code: learn next edits from the commits of these repositories."),
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="With --code: leave these files out, as in a .gitignore; repeatable."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data set's files are, instead of the cache.")] = None,
    column: Columns = None,
    download: Download = False,
    name: Annotated[str | None, typer.Option(help="Name of the adapter; default: data and method.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="lora, qlora-4bit, qlora-8bit, ia3, prompt, prefix or full; default: lora, on CUDA qlora-4bit."
        ),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="ID", help="Base model; default: the setting `model`.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the expected time and memory, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Make it the next version of an existing name.")] = False,
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Put it in use afterwards if it is better than what is.")
    ] = True,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --repo: time to learn and judge in, as in 30m; default: 30m, on CUDA 5m. 'none': all of it.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Adapter to begin with; default: with --repo the one in use. Or 'none'."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data; default: 5, with --repo what fits.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many examples of each part.")] = None,
    validation_limit: Annotated[
        int | None, typer.Option(min=1, help="Use only this many examples to choose the best weights by.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples per step; default: 8, with --repo 2.")] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=16, help="Tokens per forward pass: less needs less memory; default: 1024.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=64, help="Longest prompt of an example.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the method's.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="LoRA's rank; default: 16.")] = None,
    alpha: Annotated[float | None, typer.Option(help="LoRA's alpha; default: 32.")] = None,
    dropout: Annotated[float | None, typer.Option(help="LoRA's dropout; default: 0.05.")] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Weight-decomposed LoRA.")] = False,
    rslora: Annotated[bool, typer.Option("--rslora", help="Rank-stabilized LoRA.")] = False,
    init: Annotated[str | None, typer.Option(help="Initialization of LoRA: gaussian, pissa, olora, …")] = None,
    virtual_tokens: Annotated[
        int | None, typer.Option(min=1, help="Number of virtual tokens of prompt and prefix tuning.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations twice: slower, less memory.")
    ] = False,
    early_stopping: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N evaluations without a better one.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of weights and order; how data are split is the same for all.")
    ] = 42,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: the cores, one less while a daemon serves.")
    ] = None,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="Niceness: the higher, the more other programs go first.")
    ] = 10,
    gate_holes: Annotated[
        int, typer.Option(min=0, help="Most held-out examples that judge the adapter; 0: it is not judged, nor used.")
    ] = 96,
    feedback: Annotated[
        bool,
        typer.Option(
            "--feedback/--no-feedback",
            help="With --repo: learn suggestions accepted there whose text you agreed to keep.",
        ),
    ] = True,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME", help="Time between two checkpoints, as in 90s; more are made at evaluations.")
    ] = "10m",
    report_to: Annotated[list[str] | None, typer.Option(help="tensorboard or trackio; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Make an adapter from a data set or from your own repository, and put it in use if it helps.

    Shows progress; Ctrl-C saves a checkpoint, from which the same command with --resume continues.
    A repository is learned in half an hour: from the adapter in use there on, the most important code first, without
    the lines of its newest commits. The new adapter is put in use there only if it is better on these lines, and one of
    other data only if it is better on their test part; `peft-daemon adapters use NAME` puts it in use anyway.

    \b
    Example:
      peft-daemon tune --repo . --plan
      peft-daemon tune --repo . --budget 10m
      peft-daemon tune --repo . --edits
      peft-daemon tune --dataset conala --method ia3 --json
    """
    follow_parent()
    require_extra("tuning", "tune", TUNE_PACKAGES)
    import torch

    from peft_cli.progress_view import NoteLines
    from peft_tuning import methods
    from peft_tuning.budget import MAX_DOCUMENTS, most_documents
    from peft_tuning.data.datasets.sources import DataLocations
    from peft_tuning.data.repository.documents import HELD_OUT_HOLES
    from peft_tuning.installation import Installation
    from peft_tuning.learned import documents_learned
    from peft_tuning.methods.base import MethodOptions
    from peft_tuning.run import TuneRequest, default_threads
    from peft_tuning.start import CONTINUED

    if sum(map(bool, (dataset, repo, code))) != 1:
        raise InvalidInput(
            "say what to tune on",
            why="exactly one of --dataset, --repo and --code",
            fix="e.g. `peft-daemon tune --repo .`; `peft-daemon datasets list` shows the data sets",
        )
    if edits and dataset:
        raise InvalidInput(
            "--edits goes with --repo or --code",
            why="edits are learned from the commits of git repositories",
            fix="e.g. `peft-daemon tune --repo . --edits`",
        )
    if repo is None and budget:
        raise InvalidInput(
            "--budget goes with --repo only",
            fix="Leave it out, or limit the run with `--epochs` or `--max-steps`",
        )
    paths = Paths.from_environment()
    installation = Installation(
        settings=resolve(command_line={"model": base}, user_file=paths.config_file).settings, paths=paths
    )
    chosen = method or methods.default_for("cuda" if torch.cuda.is_available() else "cpu").id
    budget_s = None if repo is None else _budget(budget, unlimited=bool(epochs or max_steps or limit))
    own_shape = bool(rank or alpha or dora or rslora or init)
    begun = _start(installation, repo, chosen, start, own_shape=own_shape, edits=edits)
    sizes = _RepositorySizes(
        documents=min(most_documents(budget_s), limit or MAX_DOCUMENTS) if edits else most_documents(budget_s),
        holes=max(gate_holes, HELD_OUT_HOLES),
        learned=documents_learned(paths, begun.lease.digest) if begun else frozenset(),
        seen=_seen(installation, repo, begun),
        feedback=paths.feedback_file if feedback else None,
    )
    own = DataLocations.resolve(
        installation.settings, paths, data=data, progress=NoteLines(), fetch=download, columns=parse_columns(column)
    )
    source, load = _source(own, dataset, repo, code or [], ignore or [], prompt_tokens, sizes, edits=edits)
    adapter_name = name or derive_name(source, chosen)
    options = _validated(
        MethodOptions,
        rank=rank,
        alpha=alpha,
        # A short run does not learn by heart, and drawing what to drop takes a fifth of its time.
        dropout=0.0 if dropout is None and repo is not None and chosen in CONTINUED else dropout,
        dora=dora or None,
        rslora=rslora or None,
        init=init,
        virtual_tokens=virtual_tokens,
        gradient_checkpointing=gradient_checkpointing,
    )
    from peft_tuning.job import TuneJob, short_run
    from peft_tuning.trainer import resumed_threads

    asked: dict[str, object] = {
        **{"epochs": epochs, "batch_size": batch_size, "batch_tokens": batch_tokens, "learning_rate": learning_rate},
        **{"max_steps": max_steps, "limit": limit, "validation_limit": validation_limit},
    }
    given = {name: value for name, value in asked.items() if value is not None}
    job = _validated(
        TuneJob,
        method=chosen,
        options=options,
        **({**short_run(chosen), **given} if repo is not None else given),
        seed=seed,
        patience=early_stopping,
        threads=resumed_threads(installation.folder(adapter_name)) if resume else threads or default_threads(paths),
        niceness=nice,
        checkpoint_every_s=parse_duration(checkpoint_every),
        report_to=tuple(report_to or ()),
    )
    request = TuneRequest(
        name=adapter_name,
        job=job,
        load_data=load,
        repository=repo.resolve() if repo is not None else None,
        activate=activate,
        update=update,
        resume=resume,
        gate_holes=gate_holes,
        budget_s=budget_s,
        start=begun,
    )
    if plan:
        _plan(request, installation, as_json=as_json)
    else:
        _run(request, installation, as_json=as_json)


def _plan(request: TuneRequest, installation: Installation, *, as_json: bool) -> None:
    from peft_tuning.resources import make_plan
    from peft_tuning.run import check, prepare

    check(request, installation)
    made = make_plan(prepare(request, installation, request.load_data(lambda *_: None), lambda _: None))
    emit(made, as_json=as_json, text=lambda: typer.echo("\n".join(made.lines)))
    if not made.fits:
        raise Unavailable(
            "this run will not fit into memory",
            why=f"{made.peak_memory_bytes / 1e9:.1f} GB are needed, {made.available_bytes / 1e9:.1f} GB available",
            fix="Try a smaller `--batch-tokens` or `--rank`, or `--method qlora-4bit`",
        )


def _run(request: TuneRequest, installation: Installation, *, as_json: bool) -> None:
    from rich.console import Console

    from peft_cli.progress_view import JsonLines, TuningView
    from peft_tuning.run import run

    if as_json:
        lines = JsonLines(sys.stdout)
        run(request, installation, lines)
        return
    with TuningView(Console(stderr=True)) as view:
        run(request, installation, view)


class _RepositorySizes(NamedTuple):
    """Sizes of a repository's data, and what was learned before."""

    documents: int
    """The most."""
    holes: int
    """The most in each held-out part."""
    learned: frozenset[str] = frozenset()
    """Hashes of the documents that come last."""
    seen: frozenset[str] = frozenset()
    """Marks of what judges nothing any more, also of other data."""
    feedback: Path | None = None
    """The file of feedback; None: nothing of it is learned."""


def _source(
    locations: DataLocations,
    dataset: str | None,
    repo: Path | None,
    code: list[str],
    ignore: list[str],
    prompt_tokens: int | None,
    sizes: _RepositorySizes,
    *,
    edits: bool,
) -> tuple[str, Callable[[OnProgress[Loading]], DataSet]]:
    """Return a word for the adapter's name, and a function that loads the data set.

    The split is that of ``evaluate``, whatever ``--seed`` is: no adapter is tuned on what it is evaluated on.
    """
    from peft_tuning.data.datasets.sources import SEED
    from peft_tuning.learned import document_digest, is_seen, without_seen

    def shortened(found: DataSet) -> DataSet:
        from dataclasses import replace

        found = without_seen(found, sizes.seen)
        return found if prompt_tokens is None else replace(found, prompt_tokens=prompt_tokens)

    roots = [(Path(folder), licence) for folder, _, licence in (each.partition("=") for each in code)]
    if edits:
        from peft_core.code.work_trees import main_folder
        from peft_tuning.data.edits.history import edits_data_set

        word = "edits" if repo is None else f"{main_folder(repo.resolve()).name.removesuffix('.git')}-edits"
        return word, lambda on_progress: shortened(
            edits_data_set(
                [(repo, "")] if repo is not None else roots,
                name=word,
                seed=SEED,
                max_examples=sizes.documents,
                ignored=ignore,
                on_progress=on_progress,
            )
        )
    if repo is not None:
        from peft_core.code.work_trees import main_folder
        from peft_daemon.feedback import FeedbackStore
        from peft_tuning.data.repository.accepted import accepted_in
        from peft_tuning.data.repository.documents import learning_data_set

        return main_folder(repo.resolve()).name.removesuffix(".git"), lambda on_progress: shortened(
            learning_data_set(
                repo,
                seed=SEED,
                max_documents=sizes.documents,
                held_out_holes=sizes.holes,
                is_learned=lambda document: document_digest(document) in sizes.learned,
                is_seen=lambda hole: is_seen(hole, sizes.seen),
                accepted=accepted_in(FeedbackStore(sizes.feedback).rows(), repo) if sizes.feedback else (),
                on_progress=on_progress,
            )
        )
    if code:
        from peft_tuning.data.repository.dataset import folders_data_set

        known = [(folder, licence or "unknown") for folder, licence in roots]
        return "code", lambda on_progress: shortened(
            folders_data_set(known, name="code", seed=SEED, on_progress=on_progress, ignore=ignore)
        )
    from peft_tuning.data.datasets import catalogue

    return catalogue.label(str(dataset)), lambda _on_progress: shortened(
        catalogue.load(str(dataset), locations, seed=SEED)
    )


def _budget(given: str | None, *, unlimited: bool) -> float | None:
    """Return the seconds of a run; None without a limit, which is the default where steps or epochs are given."""
    import torch

    if given == "none" or (given is None and unlimited):
        return None
    return parse_duration(given or ("5m" if torch.cuda.is_available() else "30m"))


def _start(
    installation: Installation, repo: Path | None, method: str, given: str | None, *, own_shape: bool, edits: bool
) -> StartingPoint | None:
    """Return the adapter to begin with: the one that is named, or for a repository the one in use if that is possible.

    With ``own_shape``, a rank or an initialization that was asked for, only the one that is named.
    """
    from peft_core.api_types import Task
    from peft_daemon.engines.torch.families import family_of
    from peft_tuning.start import CONTINUED, starting_point, what_serves

    registry, entry = installation.registry, installation.entry
    if given == "none":
        return None
    if given is not None:
        if given in shipped_adapter_names(entry.sha256):
            update_shipped_adapters(installation.settings, installation.paths)
        named = registry.get(given)
        named.require_base(entry.id, entry.sha256)
        return starting_point(registry, named, family_of(entry.family))
    if repo is None or method not in CONTINUED or own_shape:
        return None
    with suppress(NotFound):  # without the base, which is refused with a better message
        update_shipped_adapters(installation.settings, installation.paths)
    task = Task.EDIT if edits else Task.FILL
    served = what_serves(registry, str(repo.resolve()), installation.base.sha256, task)
    with suppress(InvalidInput):
        return None if served is None else starting_point(registry, served, family_of(entry.family))
    return None


def _seen(installation: Installation, repo: Path | None, begun: StartingPoint | None) -> frozenset[str]:
    """Return the marks of what the starting point, and what serves where the adapter would, were tuned on."""
    from peft_core.api_types import Task
    from peft_tuning.learned import examples_seen
    from peft_tuning.start import what_serves

    where = str(repo.resolve()) if repo is not None else None
    digests = {begun.lease.digest} if begun else set()
    with suppress(NotFound):  # without the base, which is refused with a better message
        base = installation.base.sha256
        served = (what_serves(installation.registry, where, base, task) for task in Task)
        digests |= {manifest.digest for manifest in served if manifest is not None}
    return frozenset[str]().union(*(examples_seen(installation.paths, digest) for digest in digests))


def _validated(kind: Any, **fields: object) -> Any:
    """Build a struct from the options that were given; raises InvalidInput naming an invalid option."""
    given = {key: value for key, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        option = where.rstrip("`").replace("_", "-")
        raise InvalidInput(f"--{option} cannot be used", why=reason, fix="See `peft-daemon tune --help`") from None
