"""``peft-daemon report``: open, compare and list the reports of evaluations and benchmarks on this machine."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_cli.output import EVAL_PACKAGES, Json, emit, require_extra
from peft_core.errors import InvalidInput, NotFound
from peft_core.paths import Paths

if TYPE_CHECKING:
    from peft_evaluation.report.schema import Comparison, Report
    from peft_evaluation.study.results import StudyReport

app = typer.Typer(help="Open, compare and list evaluations.", no_args_is_help=True, rich_markup_mode=None)

Which = Annotated[str, typer.Argument(metavar="NAME|PATH", help="An evaluation's name, its folder, or a report.json.")]


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation or study as ``report list --json`` prints it."""

    kind: str = "evaluation"
    """Or ``study``, whose evaluations are listed too."""
    name: str
    created: str
    data: str
    items: int
    model: str
    strategies: Sequence[str]
    folder: str


@app.command("list", epilog="Example: peft-daemon report list")
def list_reports(as_json: Json = False) -> None:
    """Show the evaluations and studies that have a report, the newest last."""
    from peft_evaluation.report import store

    folders = store.report_folders(_folder())
    found = [*(_row(folder, store.read_report(folder)) for folder in folders), *_studies(_folder(store.STUDIES))]
    rows = sorted(found, key=lambda row: row.created)

    def text() -> None:
        for row in rows:
            name = f"study {row.name}" if row.kind == "study" else row.name
            typer.echo(f"{name}: {row.data}, {row.items} items, {', '.join(row.strategies)} ({row.created})")
        if not rows:
            typer.echo("no evaluation yet: peft-daemon evaluate --dataset conala --limit 50")

    emit(rows, as_json=as_json, text=text)


@app.command("open", epilog="Example: peft-daemon report open conala")
def open_report(
    which: Which, show: Annotated[bool, typer.Option("--show/--path", help="In the browser, or print its path.")] = True
) -> None:
    """Open a report in the browser; its pages are written again from its report.json.

    Reports of `evaluate --study`, `bench typing` and `bench edits` open as well: by name, folder, or JSON file.
    """
    require_extra("reading reports", "eval", EVAL_PACKAGES)
    from peft_evaluation.edit_benchmark.report import EDITS_PAGES
    from peft_evaluation.report.html import EVALUATION_PAGES
    from peft_evaluation.study.report import STUDY_PAGES
    from peft_evaluation.typing_benchmark.report import TYPING_PAGES

    # Takes the first kind that has this report. If none has it, the first raises the error.
    kinds = (EVALUATION_PAGES, STUDY_PAGES, TYPING_PAGES, EDITS_PAGES)
    found = [(kind, _report_path(which, kind.format.runs)) for kind in kinds]
    kind, path = next(((kind, path) for kind, path in found if kind.format.is_at(path)), found[0])
    page = kind.remake(path)
    typer.echo(str(page))
    if show and not webbrowser.open(page.resolve().as_uri()):
        raise NotFound("there is no browser to open it with", fix=f"Open {page} yourself")


@app.command("compare", epilog="Example: peft-daemon report compare conala-before conala-after")
def compare(before: Which, after: Which, as_json: Json = False) -> None:
    """Compare two evaluations of the same items, strategy by strategy, e.g. before and after a change."""
    require_extra("reading reports", "eval", EVAL_PACKAGES)
    from peft_evaluation.report import store
    from peft_evaluation.report.builder import compare_reports

    found = compare_reports(store.read_report(_report_path(before)), store.read_report(_report_path(after)))
    emit(found, as_json=as_json, text=lambda: _print(found))


@app.command("against", epilog="Example: peft-daemon report against conala rag-bm25-3")
def against(
    which: Which,
    strategy: Annotated[str, typer.Argument(metavar="STRATEGY", help="One of its strategies, as the report names it.")],
    as_json: Json = False,
) -> None:
    """Compare all strategies of an evaluation with one of them: is the adapter better than retrieval?"""
    require_extra("reading reports", "eval", EVAL_PACKAGES)
    from peft_evaluation.report import store
    from peft_evaluation.report.builder import compare_strategies

    found = compare_strategies(store.read_report(_report_path(which)), strategy)
    emit(found, as_json=as_json, text=lambda: _print(found))


@app.command("share", epilog="Example: peft-daemon report share conala ./conala-figures")
def share(
    which: Which,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, or an empty one.")],
) -> None:
    """Write a copy without questions, references and answers: all figures, and none of your code.

    Of a study (by name, folder or study.json) the copy is whole, as it has figures only.
    """
    require_extra("reading reports", "eval", EVAL_PACKAGES)
    from peft_evaluation.report import store
    from peft_evaluation.report.html import write_pages
    from peft_evaluation.report.store import without_texts
    from peft_evaluation.study.report import STUDY
    from peft_evaluation.study.report import write_report as write_study

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InvalidInput(f"{folder} is not an empty folder", fix="Name another one")
    evaluation, study = _report_path(which), _report_path(which, STUDY.runs)
    if STUDY.is_at(study) and not store.EVALUATION.is_at(evaluation):
        shared = STUDY.read(study)  # has no texts
        folder.mkdir(parents=True, exist_ok=True)
        write_study(folder, shared)
    else:
        report = without_texts(store.read_report(evaluation))
        folder.mkdir(parents=True, exist_ok=True)
        store.write_report(folder, report)
        write_pages(folder, report)
    typer.echo(str(folder))


def _print(found: Sequence[Comparison]) -> None:
    from peft_evaluation.report.tables import difference, probability
    from peft_evaluation.scorers.metrics import METRICS

    for each in found:
        typer.echo(
            f"{each.strategy}, {METRICS[each.metric].label}: {each.judgement.value} "
            f"({difference(each)}, p {probability(each.p_adjusted)}, {each.won} won, {each.lost} lost)"
        )


def _report_path(which: str, runs: str | None = None) -> Path:
    """Return ``which`` if it is a path, else the folder of that name in ``runs`` (default: the evaluations)."""
    path = Path(which)
    return path if path.exists() or path.name.endswith((".json", ".json.gz")) else _folder(runs) / which


def _folder(runs: str | None = None) -> Path:
    from peft_evaluation.report.store import EVALUATION

    return Paths.from_environment().data / (runs or EVALUATION.runs)


def _studies(parent: Path) -> list[ReportRow]:
    """Return the rows of the studies in ``parent``; what reads them takes seconds to load, so only if there are any."""
    if not any(parent.glob("*/study.json*")):
        return []
    require_extra("listing studies", "eval", EVAL_PACKAGES)
    from peft_evaluation.study.report import STUDY

    folders = [folder for folder in sorted(parent.glob("*/")) if STUDY.is_at(folder)]
    return [_study_row(folder, STUDY.read(folder)) for folder in folders]


def _study_row(folder: Path, report: StudyReport) -> ReportRow:
    def all_of(words: Iterable[str]) -> str:
        return " and ".join(dict.fromkeys(words))

    return ReportRow(
        kind="study",
        name=folder.name,
        created=report.created,
        data=all_of(f"{table.data.name}, {table.data.part}" for table in report.tables),
        items=sum({table.data.name: table.data.items for table in report.tables}.values()),
        model=all_of(table.model for table in report.tables),
        strategies=tuple(dict.fromkeys(row.name for table in report.tables for row in table.rows)),
        folder=str(folder),
    )


def _row(folder: Path, report: Report) -> ReportRow:
    return ReportRow(
        name=folder.name,
        created=report.created,
        data=f"{report.data.name}, {report.data.part}",
        items=report.data.items,
        model=report.model,
        strategies=tuple(each.id for each in report.strategies),
        folder=str(folder),
    )
