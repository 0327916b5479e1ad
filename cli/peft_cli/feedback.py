"""``peft-daemon feedback``: show or delete the feedback on suggestions, or make a data set for tuning of it.

The commands work on the feedback file and need no daemon.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from peft_cli.output import Json, emit, require_extra
from peft_core.errors import Conflict, InvalidInput, NotFound
from peft_core.files import write_private
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.feedback import (
    FeedbackCounts,
    FeedbackStore,
    FeedbackSummary,
    kept_per_100_shown,
    summarize,
)

if TYPE_CHECKING:
    from peft_tuning.data.examples import FillExample

app = typer.Typer(
    help="Show, delete and export the feedback on suggestions.", no_args_is_help=True, rich_markup_mode=None
)

EXPORT_PACKAGES = ("detect_secrets", "pathspec")
HOW_TO_AGREE = 'write feedback = "text" into the file that `peft-daemon config --path` names, or set it in your editor'
RECORDED_BY_SETTING = {
    "counts": "numbers of each suggestion; code only where you agreed in your editor",
    "text": "numbers of each suggestion, and up to 8,000 characters of code on each side of it",
    "off": "nothing is recorded",
}
"""What the daemon records, by its setting ``feedback``."""


class ShownFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """What ``feedback show --json`` prints."""

    setting: str
    """What is recorded from now on: counts, text or off."""
    file: str
    suggestions: int
    with_text: int
    """Suggestions with the code around them, which you agreed to keep."""
    unasked_text: int
    """Suggestions with code that an earlier version kept without asking. Nothing uses it."""
    lines: list[FeedbackSummary]
    kept_per_100_shown: float | None
    """Characters accepted and still there later, of 100 that were shown; null: nothing was shown yet."""


class Cleared(msgspec.Struct, frozen=True):
    """What ``feedback clear --json`` prints."""

    removed: int
    """Number of suggestions removed; with ``--text``, of those whose text was removed."""


class Exported(msgspec.Struct, frozen=True):
    """What ``feedback export --json`` prints."""

    path: str
    examples: int
    dropped: Mapping[str, int]


@app.command("show", epilog="Example: peft-daemon feedback show --json")
def show(as_json: Json = False) -> None:
    """Show how often suggestions were accepted and are still there, and what is recorded and where."""
    store, setting = _store(), _setting()
    lines, counts = summarize(store.rows()), store.counts()
    shown = ShownFeedback(
        setting=setting,
        file=str(store.file),
        suggestions=counts.all,
        with_text=counts.with_text,
        unasked_text=counts.unasked,
        lines=lines,
        kept_per_100_shown=kept_per_100_shown(lines),
    )
    emit(shown, as_json=as_json, text=lambda: _print(shown))


@app.command("clear", epilog="Example: peft-daemon feedback clear --yes")
def clear(
    text: Annotated[
        bool, typer.Option("--text", help="Remove the code around suggestions only; keep the counts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete all recorded feedback, or only the code in it."""
    store = _store()
    try:
        counts = store.counts()
    except Conflict as error:  # an unreadable file can still be removed
        if text:
            raise
        counts = FeedbackCounts(0, 0, 0)
        sys.stderr.write(f"{error.what}: {error.why}\n")
    with_code = counts.with_text + counts.unasked
    count = with_code if text else counts.all
    what = (
        f"the code around {with_code:,} recorded suggestions, in {store.file}"
        if text
        else f"{count:,} recorded suggestions ({with_code:,} with the code around them), in {store.file}"
    )
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise InvalidInput(f"this removes {what}", fix="Add --yes")
        typer.confirm(f"This removes {what}. Continue?", abort=True)
    if text:
        store.clear_text()
    else:
        store.clear()
    emit(Cleared(count), as_json=as_json, text=lambda: typer.echo(f"removed {what}"))


@app.command("export", epilog="Example: peft-daemon feedback export accepted.jsonl")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="The file to write; it must not exist yet.")],
    as_json: Json = False,
) -> None:
    """Write the suggestions that you accepted or typed, as they were 30 s later, as a data set.

    `peft-daemon tune --dataset` learns from it. It has only suggestions whose text you agreed to keep. Files that
    tuning on a repository would not read, and code with secrets, are left out.
    """
    if file.exists():
        raise Conflict(f"{file} exists already", fix="Give the name of a new file")
    if not file.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {file.absolute().parent}", fix="Give a file in a folder that exists")
    store = _store()
    if not store.counts().with_text:
        raise NotFound(
            "there is nothing to export",
            why="only counts are recorded until you agree to keep the code around suggestions on this machine",
            fix=f"To agree from now on, {HOW_TO_AGREE}",
        )
    require_extra("exporting feedback", "tune", EXPORT_PACKAGES)
    from peft_tuning.data.repository.accepted import accepted_suggestions, learnable_examples

    found = learnable_examples(accepted_suggestions(store.rows()))
    write_private(file.absolute(), b"".join(_line(example) for example in found.examples))
    exported = Exported(str(file.absolute()), len(found.examples), found.dropped)
    emit(exported, as_json=as_json, text=lambda: _print_export(exported))


def _store() -> FeedbackStore:
    return FeedbackStore(Paths.from_environment().feedback_file)


def _setting() -> str:
    return resolve(user_file=Paths.from_environment().config_file).settings.feedback


def _line(example: FillExample) -> bytes:
    fields = ("prefix", "middle", "suffix", "language", "path", "kind", "weight")
    return msgspec.json.encode({field: getattr(example, field) for field in fields}) + b"\n"


def _print(shown: ShownFeedback) -> None:
    if shown.lines:
        if shown.kept_per_100_shown is not None:
            typer.echo(f"of 100 characters shown, {shown.kept_per_100_shown:.0f} were accepted and still there later")
        _print_table(shown.lines)
    else:
        typer.echo("nothing is recorded yet")
    typer.echo(f"setting: feedback = {shown.setting} ({RECORDED_BY_SETTING[shown.setting]})")
    typer.echo(f"kept in {shown.file}, and sent nowhere: {shown.suggestions:,} suggestions, counts of each", nl=False)
    typer.echo(f"; of {shown.with_text:,} the code around them too" if shown.with_text else ", no code")
    if shown.unasked_text:
        typer.echo(
            f"of {shown.unasked_text:,} there is code that an earlier version kept without asking you; nothing uses "
            "it, and `peft-daemon feedback clear --text` removes it"
        )
    if shown.setting == "counts":
        typer.echo(f"to have code kept, which tuning can learn from: {HOW_TO_AGREE}")


def _print_table(lines: list[FeedbackSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

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
    # The language comes from a client and must not be read as formatting.
    Console(markup=False).print(table)


def _print_export(exported: Exported) -> None:
    typer.echo(f"{exported.path}: {exported.examples:,} examples")
    for reason, count in exported.dropped.items():
        typer.echo(f"left out: {count:,} ({reason})")
    if exported.examples:
        typer.echo(f"next: peft-daemon tune --dataset {exported.path}")
