"""Reports as JSON: write them whole or not at all, read them also compressed, and make copies to give away."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from peft_core import files
from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.report.schema import SCHEMA, Report, ReportedSample, Score

R = TypeVar("R", bound=msgspec.Struct)


class _Schema(msgspec.Struct):
    schema: int = 0


@dataclass(frozen=True)
class ReportFormat(Generic[R]):
    """One kind of report as a file."""

    file: str
    """Its name. With ``.gz`` it is compressed by gzip: read wherever a report is read, written by no command."""
    content: type[R]
    schema: int
    """The version that is read and written."""
    field: str
    """A field that no other kind of report has."""
    runs: str
    """The part of the data folder that has a folder for each run."""
    run: str
    """What makes the report, for messages."""
    again: str
    """How to make it once more, for messages."""

    def write(self, folder: Path, report: R) -> Path:
        """Write the report into ``folder``; returns its path."""
        path = folder / self.file
        files.write_durable(path, msgspec.json.format(msgspec.json.encode(report), indent=1))
        return path

    def is_at(self, location: Path) -> bool:
        """Whether a report of this kind is at ``location``, by a folder's files or by a file's own fields."""
        path = self._file_at(location)
        if location.is_dir():
            return path.is_file()
        try:
            return self.field in msgspec.json.decode(_content(path), type=dict[str, msgspec.Raw])
        except (OSError, EOFError, zlib.error, ValueError, RecursionError):
            return False

    def read(self, location: Path) -> R:
        """Read the report at ``location``: a file, compressed or not, or the folder of a run.

        Raises NotFound when there is none, InvalidInput when it cannot be read or is of another version.
        """
        path = self._file_at(location)
        try:
            content = _content(path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidInput(f"{path} is no report", why=str(error), fix=self.again) from None
        except OSError:
            raise NotFound(
                f"there is no report at {path}", fix=f"Give the folder of {self.run} that has ended, or its {self.file}"
            ) from None
        try:
            found = msgspec.json.decode(content, type=_Schema).schema
            if found != self.schema:
                raise InvalidInput(
                    f"{path} is a report of version {found}",
                    why=f"this peft-daemon reads version {self.schema}",
                    fix=f"{self.again}, or use the peft-daemon that wrote it",
                )
            return msgspec.json.decode(content, type=self.content)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path} is no report", why=str(error), fix=self.again) from None

    def _file_at(self, location: Path) -> Path:
        path = location / self.file if location.is_dir() else location
        compressed = path.with_name(f"{self.file}.gz")
        return compressed if path.name == self.file and not path.exists() and compressed.exists() else path


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


STUDIES = "studies"
"""The part of the data folder that has a folder for each study."""
EVALUATION = ReportFormat(
    file="report.json",
    content=Report,
    schema=SCHEMA,
    field="strategies",
    runs="evaluations",
    run="an evaluation",
    again="Evaluate again",
)


def write_report(folder: Path, report: Report) -> Path:
    """Write an evaluation's report into ``folder``; returns its path."""
    return EVALUATION.write(folder, report)


def report_folders(parent: Path) -> Iterator[Path]:
    """The folders in ``parent`` that hold an evaluation's report, plain or compressed."""
    for folder in sorted(parent.glob("*/")):
        if EVALUATION.is_at(folder):
            yield folder


def read_report(location: Path) -> Report:
    """Read an evaluation's report; raises what ``ReportFormat.read`` raises."""
    return EVALUATION.read(location)


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
