"""List the files of a folder that are code written by people, and read their text as an editor would show it.

Files are chosen by name and text alone; every file left out is counted by its reason. A listing holds names only: files
are read when they are needed. Files whose name says that they hold secrets are left out. Secrets inside files, and
duplicates, are not looked for.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from peft_core.code import git
from peft_core.code.document import normalize_newlines
from peft_core.code.languages import language_of
from peft_core.privacy.files import secret_file

MAX_SOURCE_BYTES = 500_000
"""Larger files are taken for data."""
MAX_LINE_CHARS = 2_000
"""A file with a longer line is taken for generated."""
MAX_VISITED_FILES = 200_000
"""Most files that are visited in a folder without git, which may be a whole disk."""
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
_LFS_POINTER = "version https://git-lfs.github.com/spec/"
_CONFLICT = re.compile(r"^<{7} .*?^={7}$.*?^>{7} ", re.MULTILINE | re.DOTALL)
_HEADER_CHARS = 1_000
"""Characters at the start of a file that are searched for a mark of generated code."""


class SkipReason(Enum):
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
    LFS_POINTER = "pointer of Git LFS"
    CONFLICT = "unresolved merge conflict"


@dataclass(frozen=True)
class SourceFile:
    """A file of code that people wrote."""

    path: str
    """Relative to ``root``, with ``/`` between folders, unique in its listing."""
    file: Path
    root: Path
    language: str
    licence: str = ""


@dataclass(frozen=True)
class SourceListing:
    """Files in the order of their paths, and how many others were left out, by reason.

    A vendored folder found on a walk counts once.
    """

    files: tuple[SourceFile, ...]
    skipped: Mapping[str, int]


def read_source(source: SourceFile) -> str | SkipReason:
    """Return the text of a file, without a byte order mark and with ``\\n`` line ends; or why it is left out."""
    data = _bytes(source)
    return data if isinstance(data, SkipReason) else decode_source(data)


def decode_source(data: bytes) -> str | SkipReason:
    """Return the content of a file as text, as ``read_source`` does; or why it is left out."""
    if b"\0" in data:
        return SkipReason.BINARY
    try:
        text = normalize_newlines(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return SkipReason.ENCODING
    return _by_text(text) or text


def _bytes(source: SourceFile) -> bytes | SkipReason:
    file = source.file
    try:
        if file.is_symlink():
            return SkipReason.LINK
        if not file.resolve().is_relative_to(source.root):
            return SkipReason.OUTSIDE
        if not file.is_file():
            return SkipReason.MISSING
        return SkipReason.TOO_LARGE if file.stat().st_size > MAX_SOURCE_BYTES else file.read_bytes()
    except OSError:
        return SkipReason.MISSING


def _by_text(text: str) -> SkipReason | None:
    """Return why a file with this text is left out; None if it is not."""
    if not text.strip():
        return SkipReason.EMPTY
    if text.startswith(_LFS_POINTER):
        return SkipReason.LFS_POINTER
    if ">>>>>>> " in text and _CONFLICT.search(text):
        return SkipReason.CONFLICT
    header = text[:_HEADER_CHARS].lower()
    if ("generated" in header or "do not" in header) and _GENERATED_MARK.search(header):
        return SkipReason.GENERATED
    lines = text.split("\n")
    return SkipReason.MINIFIED if max(map(len, lines)) > MAX_LINE_CHARS or len(text) > 200 * len(lines) else None


def walk_folder(root: Path) -> Iterator[tuple[str, Path] | SkipReason]:
    """Yield every file below a folder with its path, in a stable order, and a reason for each skipped folder."""
    for folder, folders, names in os.walk(root):
        yield from (SkipReason.VENDORED for each in folders if each in _VENDORED)
        folders[:] = sorted(each for each in folders if each not in _VENDORED)
        for name in sorted(names):
            file = Path(folder, name)
            path = decode_path(os.fsencode(file.relative_to(root).as_posix()))
            yield SkipReason.NAME if path is None else (path, file)


def list_sources(root: Path, candidates: Iterable[tuple[str, Path] | SkipReason]) -> SourceListing:
    """Return the candidates (path, file) whose names are those of code, and count those left out."""
    files: list[SourceFile] = []
    skipped: Counter[str] = Counter()
    for each in candidates:
        found = each if isinstance(each, SkipReason) else source_language(each[0])
        if isinstance(found, SkipReason):
            skipped[found.value] += 1
        elif not isinstance(each, SkipReason):
            files.append(SourceFile(each[0], each[1], root, found))
    return SourceListing(tuple(sorted(files, key=lambda file: file.path)), dict(skipped))


def source_language(path: str) -> str | SkipReason:
    """Return the language of a file, or why it is left out, by its path alone."""
    if any(part in _VENDORED for part in path.split("/")[:-1]):
        return SkipReason.VENDORED
    if _GENERATED_NAME.search(path):
        return SkipReason.GENERATED
    language = language_of(path)
    if language and secret_file(path):
        return SkipReason.PRIVATE
    return language or SkipReason.LANGUAGE


def decode_path(path: bytes) -> str | None:
    """Return a path as text; None where it is not UTF-8 or has control characters, which a prompt cannot show."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def list_workspace(root: Path) -> SourceListing:
    """Return the source files below ``root`` (a path without links), committed or not.

    In a git work tree these are the files that git tracks or could add; elsewhere all but hidden ones. Links are not
    followed. Raises InvalidInput if git refuses one of its work trees, Unavailable if git is missing.
    """
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        return list_sources(root, _in_git(root))
    return list_sources(root, islice(_outside_git(root), MAX_VISITED_FILES))


def _in_git(root: Path) -> Iterator[tuple[str, Path] | SkipReason]:
    for each in git.visible_paths(root):
        path = decode_path(each)
        yield SkipReason.NAME if path is None else (path, root / path)


def _outside_git(root: Path) -> Iterator[tuple[str, Path] | SkipReason]:
    for each in walk_folder(root):
        hidden = not isinstance(each, SkipReason) and any(part.startswith(".") for part in each[0].split("/"))
        yield SkipReason.IGNORED if hidden else each
