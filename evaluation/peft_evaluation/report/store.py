"""``report.json``: write it whole or not at all, read it also compressed, and make a copy that can be given away."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from peft_core import files
from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.report.schema import SCHEMA, Report, ReportedSample, Score

REPORT_FILE = "report.json"
COMPRESSED_FILE = f"{REPORT_FILE}.gz"
"""The same compressed by gzip: read wherever a report is read, written by no command."""


class _Schema(msgspec.Struct):
    schema: int = 0


def write_report(folder: Path, report: Report) -> Path:
    """Write the report into ``folder``; returns its path."""
    path = folder / REPORT_FILE
    files.write_durable(path, msgspec.json.format(msgspec.json.encode(report), indent=1))
    return path


def report_folders(parent: Path) -> Iterator[Path]:
    """The folders in ``parent`` that hold a report, plain or compressed."""
    for folder in sorted(parent.glob("*/")):
        if any((folder / name).is_file() for name in (REPORT_FILE, COMPRESSED_FILE)):
            yield folder


def read_report(location: Path) -> Report:
    """Read the report at ``location``: a file, compressed or not, or the folder of an evaluation.

    Raises NotFound when there is none, InvalidInput when it cannot be read or is of another version.
    """
    path = location / REPORT_FILE if location.is_dir() else location
    if not path.exists() and path.name == REPORT_FILE:
        compressed = path.with_name(COMPRESSED_FILE)
        path = compressed if compressed.exists() else path
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{path} is no report", why=str(error), fix="Evaluate again") from None
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


NOTE = "Questions, references and answers are left out of this copy."


def without_texts(report: Report) -> Report:
    """The same report without its texts."""
    data = replace(report.data, notes=(*report.data.notes, NOTE))
    return replace(report, data=data, items=tuple(_sample_without_texts(item) for item in report.items))


def _sample_without_texts(item: ReportedSample) -> ReportedSample:
    return replace(
        item, question="", reference="", answers=tuple(_answer_without_texts(answer) for answer in item.answers)
    )


def _answer_without_texts(answer: Score) -> Score:
    # Behind the colon stands what a program printed or raised.
    outcomes = tuple(outcome.partition(":")[0] for outcome in answer.outcomes)
    return replace(answer, texts=("",) * len(answer.texts), outcomes=outcomes)
