"""``report.json``: written whole or not at all, and read with an error that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from peft_core import files
from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.results import SCHEMA, Report

FILE = "report.json"


class _Schema(msgspec.Struct):
    schema: int = 0


def write(folder: Path, report: Report) -> Path:
    """Write the report into ``folder``; returns its path."""
    path = folder / FILE
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(report), indent=1))
    return path


def read(place: Path) -> Report:
    """The report at ``place``, a file or the folder of an evaluation.

    Raises NotFound when there is none, InvalidInput when it cannot be read or is of another version.
    """
    path = place / FILE if place.is_dir() else place
    try:
        content = path.read_bytes()
    except OSError:
        raise NotFound(
            f"there is no report at {path}", fix="Give the folder of an evaluation that has ended, or its report.json"
        ) from None
    try:
        found = msgspec.json.decode(content, type=_Schema).schema
        if found != SCHEMA:
            raise InvalidInput(
                f"{path} is a report of version {found}",
                why=f"this peft-daemon reads version {SCHEMA}",
                fix="Evaluate again, or use the peft-daemon that wrote it",
            )
        return msgspec.json.decode(content, type=Report)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is no report", why=str(error), fix="Evaluate again") from None
