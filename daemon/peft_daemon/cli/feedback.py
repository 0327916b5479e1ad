"""``peft-daemon feedback``: what became of suggestions, summed up, removed, or made into a data set to tune on.

Works on the file it is kept in; no daemon is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_daemon.cli import extras
from peft_daemon.cli.output import Json, emit
from peft_daemon.errors import Conflict, InvalidInput, NotFound
from peft_daemon.feedback.store import FeedbackStore, Row
from peft_daemon.feedback.summary import Line, summed_up
from peft_daemon.lifecycle.private_files import write_private
from peft_daemon.paths import Paths
from peft_daemon.protocol import Outcome

if TYPE_CHECKING:
    from peft_tuning.examples import FillExample
    from peft_tuning.repository.accepted import Accepted

app = typer.Typer(
    help="See, remove and learn from what became of suggestions.", no_args_is_help=True, rich_markup_mode=None
)

EXPORT = ("detect_secrets", "pathspec")


class Cleared(msgspec.Struct, frozen=True):
    """What ``feedback clear --json`` prints."""

    removed: int


class Exported(msgspec.Struct, frozen=True):
    """What ``feedback export --json`` prints."""

    path: str
    examples: int
    dropped: Mapping[str, int]


@app.command("show", epilog="Example: peft-daemon feedback show --json")
def show(as_json: Json = False) -> None:
    """Show how often suggestions were accepted and are still there, by adapter and language."""
    lines = summed_up(_store().rows())
    emit(lines, as_json=as_json, text=lambda: _print(lines))


@app.command("clear", epilog="Example: peft-daemon feedback clear --yes")
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove everything that was recorded."""
    store = _store()
    try:
        count = store.count()
    except Conflict as error:  # it cannot be read, but removed
        count = 0
        sys.stderr.write(f"{error.what}: {error.why}\n")
    what = f"{count:,} recorded suggestions with the code around them, in {store.file}"
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(f"this removes {what}", fix="Add --yes")
        typer.confirm(f"This removes {what}. Go on?", abort=True)
    store.clear()
    emit(Cleared(count), as_json=as_json, text=lambda: typer.echo(f"removed {what}"))


@app.command("export", epilog="Example: peft-daemon feedback export accepted.jsonl")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="The file to write; it must not exist yet.")],
    as_json: Json = False,
) -> None:
    """Write the accepted suggestions, as they stood 30 s later, as a data set for `peft-daemon tune --dataset`.

    Files that tuning on a repository would not read are left out, and so is what holds a secret.
    """
    if file.exists():
        raise Conflict(f"{file} exists already", fix="Give the name of a new file")
    if not file.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {file.absolute().parent}", fix="Give a file in a folder that exists")
    extras.require("exporting feedback", "tune", EXPORT)
    from peft_tuning.repository.accepted import learnable

    found = learnable(_accepted(row) for row in _store().rows() if _stayed(row))
    write_private(file.absolute(), b"".join(_line(example) for example in found.examples))
    exported = Exported(str(file.absolute()), len(found.examples), found.dropped)
    emit(exported, as_json=as_json, text=lambda: _print_export(exported))


def _store() -> FeedbackStore:
    return FeedbackStore(Paths.from_environment().feedback_file)


def _stayed(row: Row) -> bool:
    """Whether a suggestion was taken as a whole and something of it was still there."""
    return row.record.outcome is Outcome.ACCEPTED and bool(row.record.kept)


def _accepted(row: Row) -> Accepted:
    from peft_tuning.repository.accepted import Accepted

    record = row.record
    return Accepted(
        id=f"feedback/{row.id}",
        path=record.path,
        repository=row.repository,
        language=record.language,
        prefix=record.prefix,
        middle=record.now or "",
        suffix=record.suffix[record.replaced :],
    )


def _line(example: FillExample) -> bytes:
    fields = ("prefix", "middle", "suffix", "language", "path", "kind")
    return msgspec.json.encode({field: getattr(example, field) for field in fields}) + b"\n"


def _print(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not lines:
        typer.echo("nothing is recorded yet")
        return
    table = Table(
        *("adapter", "language", "offers", "accepted", "partly", "typed", "rejected", "still there after 30 s"),
        "characters accepted / shown",
    )
    for line in lines:
        shares = (line.accepted, line.partly, line.typed, line.rejected, line.still_there)
        table.add_row(
            line.adapter,
            line.language,
            f"{line.offers:,}",
            *("–" if share is None else f"{share:.0%}" for share in shares),
            f"{line.characters_accepted:,} / {line.characters_shown:,}",
        )
    # A language is what some client said it is: never formatting.
    Console(markup=False).print(table)


def _print_export(exported: Exported) -> None:
    typer.echo(f"{exported.path}: {exported.examples:,} examples")
    for reason, count in exported.dropped.items():
        typer.echo(f"left out: {count:,} ({reason})")
    if exported.examples:
        typer.echo(f"next: peft-daemon tune --dataset {exported.path}")
