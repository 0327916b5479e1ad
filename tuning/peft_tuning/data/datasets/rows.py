"""Rows of a JSON, JSON Lines or parquet file, one at a time, and typed access to their fields.

For a row that cannot be read, or a field of another type, InvalidInput names file, row and field. The module of the
data set knows what a row means and whether it is kept.
"""

from __future__ import annotations

import ast
import csv
import gzip
import importlib
import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from peft_core.errors import InvalidInput

MAX_SHOWN_FIELDS = 5
"""Fields of the row that are named in the error about a missing one."""
MAX_DIGITS = 100_000
"""Longest whole number that is read; the conversion takes quadratic time."""
MAX_WEIGHT = 100.0
"""Largest weight of an example: more would drown all others."""
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_OPTIONAL = frozenset({"split", "language", "path", "kind", "input", "weight"})
_MAX_DIGITS_PER_STEP = 4000
"""Digits converted at a time: Python refuses more than 4,300."""


@dataclass(frozen=True)
class DataRow:
    """One row of a file, with its position for messages."""

    file: Path
    number: int
    """From 1: the line in a JSON Lines file, or the position in a list."""
    values: Mapping[str, object]

    def text(self, field: str, default: str | None = None) -> str:
        """Return a text field; ``default`` if it is missing or null. Raises InvalidInput otherwise."""
        value = self.values.get(field)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(
                field, f"should be text and is {_kind(value)}" if field in self.values else self._missing()
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(field, "holds half a surrogate pair, which is no text") from None
        return value

    def weight(self) -> float:
        """Return the field ``weight``, 1 if it is missing; raises InvalidInput unless it is a number above 0."""
        value = self.values.get("weight", 1.0)
        try:  # a table has text only
            weight = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
        except ValueError:
            weight = 0.0
        if not 0 < weight <= MAX_WEIGHT:
            raise self.error("weight", f"should be a number above 0, at most {MAX_WEIGHT:g}")
        return weight

    def number_or_text(self, field: str) -> str:
        """Return an identifier, which may be a number or text; raises InvalidInput for anything else."""
        value = self.values.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(field)

    def error(self, field: str, why: str) -> InvalidInput:
        """Return the error for a field that cannot be used."""
        return InvalidInput(
            f"{self.file}, row {self.number}, field '{field}'", why=why, fix="Correct that row or leave it out"
        )

    def _missing(self) -> str:
        names = ", ".join(map(repr, list(self.values)[:MAX_SHOWN_FIELDS])) or "none"
        return f"is missing; the row has {names}"


def read_rows(path: Path) -> Iterator[DataRow]:
    """Read all rows of ``path`` by its name: parquet, CSV, else JSON (a list, or one object per line), ``.gz`` or not.

    Raises InvalidInput for a file that is damaged, not UTF-8, or whose rows are no objects.
    """
    try:
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            yield from _parquet(path)
            return
        if suffix in _SEPARATORS:
            yield from _table(path, _SEPARATORS[suffix])
            return
        with _open(path) as file:
            yield from _json(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), fix="Give another file with --data") from None


def parse_json(text: str | bytes) -> object:
    """Decode JSON with whole numbers of up to ``MAX_DIGITS`` digits; raises ValueError for anything else."""
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parses(code: str) -> bool:
    """Return whether the running interpreter can parse ``code``; nothing is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the data's code do not help the user
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits)
    value = 0
    for start in range(0, len(digits), _MAX_DIGITS_PER_STEP):
        piece = digits[start : start + _MAX_DIGITS_PER_STEP]
        value = value * 10 ** len(piece) + int(piece)
    return sign * value


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _json(path: Path, file: BinaryIO) -> Iterator[DataRow]:
    lines = enumerate(file, start=1)
    for number, line in lines:
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not content.strip():
            continue
        if content.lstrip().startswith(b"["):
            yield from _list(path, content + file.read())
            return
        yield _row(path, number, content)


def _list(path: Path, data: bytes) -> Iterator[DataRow]:
    rows = _document(path, data, "the list")
    if not isinstance(rows, list):
        raise InvalidInput(f"{path} holds no list of rows", fix="Give a JSON list, or one object per line")
    for number, values in enumerate(rows, start=1):
        yield DataRow(path, number, _object(path, number, values))


def _row(path: Path, number: int, line: bytes) -> DataRow:
    return DataRow(path, number, _object(path, number, _document(path, line, f"row {number}")))


def _document(path: Path, data: bytes, what: str) -> object:
    try:
        return parse_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}, {what}, is not UTF-8", why=error.reason, fix="Save the file as UTF-8") from None
    except ValueError as error:
        raise InvalidInput(
            f"{path}, {what}, is not JSON", why=str(error), fix="Give a JSON list, or one object per line"
        ) from None


def _object(path: Path, number: int, values: object) -> Mapping[str, object]:
    if not isinstance(values, dict):
        raise InvalidInput(
            f"{path}, row {number}, is {_kind(values)}",
            why="a row is an object",
            fix="Correct that row or leave it out",
        )
    return values


def _table(path: Path, separator: str) -> Iterator[DataRow]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, values in enumerate(csv.DictReader(file, delimiter=separator), start=1):
                # An empty cell of a column that not all rows have is none.
                yield DataRow(
                    path, number, {key: value for key, value in values.items() if value or key not in _OPTIONAL}
                )
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8", why=error.reason, fix="Save the file as UTF-8") from None
    except csv.Error as error:
        raise InvalidInput(f"{path} is no table", why=str(error), fix="Give a header line and rows, as CSV") from None


def _parquet(path: Path) -> Iterator[DataRow]:
    try:
        # By name: it comes with the tune extra and has no type information.
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InvalidInput(
            f"cannot read {path}", why="parquet needs pyarrow", fix="Type `pip install 'peft-daemon[tune]'`"
        ) from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield DataRow(path, number, _object(path, number, values))
    except ValueError as error:  # what pyarrow raises for a file that is no parquet
        raise InvalidInput(f"{path} is not parquet", why=str(error), fix="Give another file with --data") from None


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
