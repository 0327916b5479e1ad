"""``peft-daemon datasets``: list the data sets for tuning, and show sizes, files and examples of one.

``list`` never uses the network and reads no data. ``show`` reads the data set, and fetches it if it is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from peft_cli.output import Json, emit
from peft_cli.terminal import plain
from peft_core.errors import InvalidInput, NotFound
from peft_core.paths import Paths
from peft_core.settings import find_project_file, resolve

if TYPE_CHECKING:
    from peft_tuning.data.datasets.sources import DataLocations, DataSetEntry
    from peft_tuning.data.examples import DataSet, Example

app = typer.Typer(help="List data sets, and show what is in one.", no_args_is_help=True, rich_markup_mode=None)

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Take the data from this file or folder; default: docs/datasets.md."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="FIELD=NAME", help="What a column of your data is, e.g. intent=title; may be repeated."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch OWNER/NAME from the hub; without it only what was fetched is read.")
]
MAX_SHOWN_LINES = 12
"""Most lines of an example's text that are printed; JSON has all."""


class DataSetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One data set as ``datasets list --json`` prints it."""

    id: str
    summary: str
    licence: str
    sizes: Mapping[str, int]
    """Sizes in the study; ``datasets show`` counts those of the files here."""
    found: str | None
    """Where the files were found; null: they would be fetched."""
    files: Sequence[str]


class ShownDataSet(msgspec.Struct, frozen=True, kw_only=True):
    """What ``datasets show --json`` prints."""

    id: str
    licence: str
    sizes: Mapping[str, int]
    dropped: Mapping[str, int]
    provenance: str
    digest: str
    prompt_tokens: int
    response_tokens: int
    split: str
    examples: Sequence[Mapping[str, object]]


@app.command("list", epilog="Example: peft-daemon datasets list --json")
def list_data_sets(data: Data = None, as_json: Json = False) -> None:
    """Show the data sets, their licences, and where their files are."""
    from peft_tuning.data.datasets import catalogue

    locations = _locations(data)
    rows = [_row(entry, locations) for entry in catalogue.ENTRIES]
    emit(rows, as_json=as_json, text=lambda: _print_rows(rows, locations))


@app.command("show", epilog="Example: peft-daemon datasets show conala --data ~/conala --examples 3")
def show_data_set(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Of `datasets list`, a FILE.jsonl, a folder, or OWNER/NAME of the hub."),
    ],
    data: Data = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option("--split", help="The part whose examples are shown.")
    ] = "train",
    examples: Annotated[int, typer.Option("--examples", min=0, metavar="N", help="How many examples.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of a split that is not published.")] = 42,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    column: Columns = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Show a data set: sizes, rows left out by reason, licence, where it was found, digest, examples."""
    from peft_tuning.data.datasets import catalogue

    locations = _locations(data, offline=offline, fetch=download, columns=parse_columns(column))
    loaded = catalogue.load(name, locations, seed=seed)
    shown = _shown(loaded, split, examples)
    emit(shown, as_json=as_json, text=lambda: _print_shown(shown))


def parse_columns(given: list[str] | None) -> dict[str, str]:
    """Return the names of columns by what they are; raises InvalidInput for what no column can be."""
    from peft_tuning.data.datasets.jsonl import FIELDS

    columns = {field: name for field, _, name in (each.partition("=") for each in given or ())}
    for field, name in columns.items():
        if field not in FIELDS or not name:
            raise InvalidInput(
                f"--column {field}={name} says nothing",
                why=f"a column can be {', '.join(FIELDS)}",
                fix="e.g. `--column intent=title --column code=solution`",
            )
    return columns


def _locations(
    data: Path | None, *, offline: bool = False, fetch: bool = False, columns: Mapping[str, str] | None = None
) -> DataLocations:
    from peft_cli.progress_view import NoteLines
    from peft_tuning.data.datasets.sources import DataLocations

    paths = Paths.from_environment()
    settings = resolve(
        command_line={"offline": True if offline else None},
        project_file=find_project_file(Path.cwd()),
        user_file=paths.config_file,
    ).settings
    return DataLocations.resolve(
        settings, paths, data=data.expanduser() if data else None, progress=NoteLines(), fetch=fetch, columns=columns
    )


def _row(entry: DataSetEntry, locations: DataLocations) -> DataSetRow:
    from peft_tuning.data.datasets.sources import locate

    try:
        found = [locate(files, locations) for files in entry.files]
    except NotFound:  # --data may hold another data set only
        found = [None]
    here = [part for part in found if part is not None]
    complete = len(here) == len(found)
    return DataSetRow(
        id=entry.id,
        summary=entry.summary,
        licence=entry.licence,
        sizes=entry.sizes,
        found=" and ".join(dict.fromkeys(part.location for part in here)) if complete else None,
        files=[str(path) for part in here for path in part.files.values()] if complete else [],
    )


def _shown(loaded: DataSet, split: str, count: int) -> ShownDataSet:
    parts: dict[str, Sequence[Example]] = {
        "train": loaded.train,
        "validation": loaded.validation,
        "test": loaded.test,
    }
    return ShownDataSet(
        id=loaded.name,
        licence=loaded.licence,
        sizes={part: len(rows) for part, rows in parts.items()},
        dropped=loaded.dropped,
        provenance=loaded.provenance,
        digest=loaded.digest,
        prompt_tokens=loaded.prompt_tokens,
        response_tokens=loaded.response_tokens,
        split=split,
        examples=[msgspec.to_builtins(example) for example in parts[split][:count]],
    )


def _sizes(sizes: Mapping[str, int]) -> str:
    return " / ".join(f"{count:,}" for count in sizes.values())


def _print_rows(rows: Sequence[DataSetRow], locations: DataLocations) -> None:
    for row in rows:
        typer.echo(f"{row.id}: {row.summary}")
        typer.echo(f"  train / validation / test in the study: {_sizes(row.sizes)}")
        typer.echo(f"  licence: {row.licence}")
        if row.found:
            where = [f"  here ({row.found}): {file}" for file in row.files]
        else:
            where = (
                ["  not here: give its folder with --data"] if locations.offline else ["  not here: fetched when used"]
            )
        typer.echo("\n".join(where))
    typer.echo("FILE.jsonl: your own data, intent and code or prefix, suffix and middle (docs/datasets.md)")
    typer.echo("FOLDER or OWNER/NAME: a folder of the `datasets` library, a data set of the hub (docs/datasets.md)")


def _print_shown(shown: ShownDataSet) -> None:
    typer.echo(f"{shown.id}: {_sizes(shown.sizes)} examples (train / validation / test)")
    typer.echo(f"licence: {shown.licence}")
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in shown.dropped.items()) or "none"
    typer.echo(f"rows left out: {dropped}")
    typer.echo(f"found: {shown.provenance}")
    typer.echo(f"digest: {shown.digest}")
    typer.echo(f"longest prompt {shown.prompt_tokens} tokens, longest answer {shown.response_tokens}")
    for example in shown.examples:
        typer.echo(f"\n{shown.split}: {example['id']}")
        for field in ("intent", "code", "prefix", "middle", "suffix"):
            if field in example:
                typer.echo(f"  {field}:")
                typer.echo(_indented(str(example[field])))


def _indented(text: str) -> str:
    """Indent the first lines of a text, without control characters, which could steer the terminal."""
    lines = plain(text).splitlines()
    more = [f"    … {len(lines) - MAX_SHOWN_LINES} more lines"] if len(lines) > MAX_SHOWN_LINES else []
    return "\n".join([*(f"    {line}" for line in lines[:MAX_SHOWN_LINES]), *more])
