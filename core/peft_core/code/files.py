"""Which files are code that people wrote, and their text as the editor would show it.

Judged by name and text alone; every file left out is counted under its reason. Reading is lazy: a listing holds names
only. Which files of a folder are looked at is for the callers to say: see ``workspace`` here, and tuning's ``files``.
A file that holds secrets by its name does not count. Does not look for secrets inside files, or for duplicates.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from peft_core.code.document import normalize_newlines
from peft_core.code.languages import language_of
from peft_core.privacy.files import secret_file

LARGEST = 500_000
"""Bytes; a larger file is data."""
LONGEST_LINE = 2_000
"""Characters; a file with a longer line was not written by hand."""
_VENDORED = frozenset(
    (
        *("vendor", "vendored", "_vendor", "_vendored", "third_party", "third-party", "thirdparty", "3rdparty"),
        *("node_modules", "bower_components", "jspm_packages", "site-packages", "dist-packages"),
        *(".venv", "venv", ".tox", ".nox", ".eggs"),
    )
)
_GENERATED_NAME = re.compile(
    r"(?:_pb2(?:_grpc)?\.pyi?|\.pb\.(?:go|cc|h)|\.min\.[cm]?js|\.bundle\.js|\.g\.dart|\.designer\.cs"
    r"|[._](?:generated|gen)\.\w+|(?:^|/)(?:versioneer|_version)\.py|(?:^|[-./])lock\.\w+)$",
    re.IGNORECASE,
)
_GENERATED_MARK = re.compile(
    r"""^[ \t]*(?:\#|//|/?\*|--|<!--|;|"{3}|'{3})?[ \t]*
    (?:[^\n"'(]{0,60}?(?:@generated|code\ generated|auto(?:matically)?[ -]?generated|do\ not\ (?:edit|modify))
    |(?:this\ file\ (?:is|was|has\ been)\ )?generated\ (?:by|from|with))\b""",
    re.MULTILINE | re.VERBOSE,
)
_HEADER = 1_000
"""Characters at the start of a file in which it says that it was generated."""


class Skip(Enum):
    """Why a file is left out."""

    IGNORED = "ignored by .gitignore"
    RULED_OUT = "ignored by .peft-daemon.toml"
    SUBMODULE = "submodule"
    LINK = "symbolic link"
    OUTSIDE = "outside the folder"
    NAME = "unusual name"
    PRIVATE = "holds secrets, by its name"
    LANGUAGE = "not code"
    VENDORED = "vendored"
    GENERATED = "generated"
    MISSING = "not in the work tree"
    TOO_LARGE = "too large"
    BINARY = "binary"
    ENCODING = "not UTF-8"
    MINIFIED = "minified"
    EMPTY = "empty"


@dataclass(frozen=True)
class SourceFile:
    """A file that counts."""

    path: str
    """Relative to its root, with ``/`` in it, unique in its listing."""
    file: Path
    root: Path
    language: str
    licence: str = ""


@dataclass(frozen=True)
class Listing:
    """Files in the order of their paths, and how many others were left out, by reason.

    A vendored folder that is met on a walk counts once.
    """

    files: tuple[SourceFile, ...]
    skipped: Mapping[str, int]


def read(source: SourceFile) -> str | Skip:
    """The text of a file as an editor shows it, without a byte order mark and with ``\\n`` line ends; or why not."""
    data = _bytes(source)
    if isinstance(data, Skip):
        return data
    if b"\0" in data:
        return Skip.BINARY
    try:
        text = normalize_newlines(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Skip.ENCODING
    return _by_text(text) or text


def _bytes(source: SourceFile) -> bytes | Skip:
    file = source.file
    try:
        if file.is_symlink():
            return Skip.LINK
        if not file.resolve().is_relative_to(source.root):
            return Skip.OUTSIDE
        if not file.is_file():
            return Skip.MISSING
        return Skip.TOO_LARGE if file.stat().st_size > LARGEST else file.read_bytes()
    except OSError:
        return Skip.MISSING


def _by_text(text: str) -> Skip | None:
    """Why a text does not count; None if it does."""
    if not text.strip():
        return Skip.EMPTY
    header = text[:_HEADER].lower()
    if ("generated" in header or "do not" in header) and _GENERATED_MARK.search(header):
        return Skip.GENERATED
    lines = text.split("\n")
    return Skip.MINIFIED if max(map(len, lines)) > LONGEST_LINE or len(text) > 200 * len(lines) else None


def walk(root: Path) -> Iterator[tuple[str, Path] | Skip]:
    """Every file below a folder with its path, in a stable order; of vendored folders only that there is one."""
    for folder, folders, names in os.walk(root):
        yield from (Skip.VENDORED for each in folders if each in _VENDORED)
        folders[:] = sorted(each for each in folders if each not in _VENDORED)
        for name in sorted(names):
            file = Path(folder, name)
            path = usual(os.fsencode(file.relative_to(root).as_posix()))
            yield Skip.NAME if path is None else (path, file)


def listing_of(root: Path, candidates: Iterable[tuple[str, Path] | Skip]) -> Listing:
    """Those of the candidates (a path, and the file) whose name says that they count, and what was left out before."""
    files: list[SourceFile] = []
    skipped: Counter[str] = Counter()
    for each in candidates:
        found = each if isinstance(each, Skip) else _by_name(each[0])
        if isinstance(found, Skip):
            skipped[found.value] += 1
        elif not isinstance(each, Skip):
            files.append(SourceFile(each[0], each[1], root, found))
    return Listing(tuple(sorted(files, key=lambda file: file.path)), dict(skipped))


def _by_name(path: str) -> str | Skip:
    """The language of a file that counts, by its path alone."""
    if any(part in _VENDORED for part in path.split("/")[:-1]):
        return Skip.VENDORED
    if _GENERATED_NAME.search(path):
        return Skip.GENERATED
    language = language_of(path)
    if language and secret_file(path):
        return Skip.PRIVATE
    return language or Skip.LANGUAGE


def usual(path: bytes) -> str | None:
    """A path as text; None where it is not UTF-8 or has control characters: a prompt has a line for it."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
