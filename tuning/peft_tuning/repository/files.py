"""Which files are learned from, and their text as the editor would show it.

In a repository only files that git tracks and no ignore rule names; elsewhere (a library's folder) every file below
it. Every file left out is counted under its reason. Reading is lazy: a listing holds names only. Does not look for
secrets or duplicates.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pathspec

from peft_daemon.completion.document import normalize_newlines
from peft_daemon.config import PROJECT_FILE
from peft_daemon.errors import InvalidInput
from peft_tuning.repository import git
from peft_tuning.repository.languages import language_of

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
    """A file that may be learned from."""

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


def repository_files(root: Path) -> Listing:
    """The tracked source files below ``root``, a folder of a git work tree.

    Raises InvalidInput where there is no work tree or ``.peft-daemon.toml`` is wrong, Unavailable without git.
    """
    git.require_work_tree(root)
    root = root.resolve()
    rules, base = ignore_rules(root)
    entries = git.tracked(root)
    ignored = git.ignored(root)
    attributes = git.attributes(root, [each.path for each in entries], ("linguist-generated", "linguist-vendored"))
    marks = {
        Skip.IGNORED: ignored,
        Skip.GENERATED: attributes["linguist-generated"],
        Skip.VENDORED: attributes["linguist-vendored"],
    }

    def candidates() -> Iterator[tuple[str, Path] | Skip]:
        for entry in entries:
            path = _usual(entry.path)
            mark = next((skip for skip, paths in marks.items() if entry.path in paths), None)
            if entry.submodule or entry.link:
                yield Skip.SUBMODULE if entry.submodule else Skip.LINK
            elif path is None or mark:
                yield mark or Skip.NAME
            elif rules.match_file(base + path):
                yield Skip.RULED_OUT
            else:
                yield path, root / path

    return _listing(root, candidates())


def source_files(roots: Sequence[tuple[Path, str]], ignore: Sequence[str] = ()) -> Listing:
    """The source files below plain folders, each with its licence; ``ignore`` holds patterns as in a .gitignore.

    Paths begin with the folder's name. Raises InvalidInput for a folder that is not there, or that two share a name.
    """
    rules = _rules(ignore, "the patterns given")
    files: list[SourceFile] = []
    skipped: Counter[str] = Counter()
    names = [root.resolve().name for root, _licence in roots]
    for (root, licence), name in zip(roots, names, strict=True):
        if not root.is_dir() or names.count(name) > 1:
            raise InvalidInput(
                f"cannot learn from {root}",
                why="two folders have this name" if root.is_dir() else "it is not a folder",
                fix="Give folders with names of their own",
            )
        listing = _listing(root.resolve(), _walk(root.resolve(), rules))
        files += [SourceFile(f"{name}/{f.path}", f.file, f.root, f.language, licence) for f in listing.files]
        skipped.update(listing.skipped)
    return Listing(tuple(files), dict(skipped))


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


def ignore_rules(root: Path) -> tuple[pathspec.GitIgnoreSpec, str]:
    """The patterns of ``[tune] ignore`` in the nearest ``.peft-daemon.toml``, and what paths below ``root`` begin with.

    The patterns are read as in a .gitignore in the file's folder. Raises InvalidInput for anything but texts.
    """
    for folder in (root, *root.parents):
        file = folder / PROJECT_FILE
        if file.is_file():
            try:
                table = tomllib.loads(file.read_text(encoding="utf-8")).get("tune", {})
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                raise InvalidInput(f"cannot read {file}", why=str(error), fix="Correct or delete that file") from None
            ignore = table.get("ignore", []) if isinstance(table, dict) else table
            if not isinstance(ignore, list) or not all(isinstance(each, str) for each in ignore):
                raise InvalidInput(
                    f"bad [tune] ignore in {file}", why="it is not a list of texts", fix='Write ignore = ["docs/", …]'
                )
            below = root.relative_to(folder).as_posix()
            return _rules(ignore, str(file)), "" if below == "." else below + "/"
        if (folder / ".git").exists():
            break
    return _rules([], ""), ""


def _rules(patterns: Iterable[str], where: str) -> pathspec.GitIgnoreSpec:
    try:
        return pathspec.GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise InvalidInput(
            f"bad ignore pattern in {where}", why=str(error), fix="Write patterns as in a .gitignore"
        ) from None


def _walk(root: Path, rules: pathspec.GitIgnoreSpec) -> Iterator[tuple[str, Path] | Skip]:
    for folder, folders, names in os.walk(root):
        yield from (Skip.VENDORED for each in folders if each in _VENDORED)
        folders[:] = sorted(each for each in folders if each not in _VENDORED)
        for name in sorted(names):
            file = Path(folder, name)
            path = _usual(os.fsencode(file.relative_to(root).as_posix()))
            if path is None:
                yield Skip.NAME
            else:
                yield Skip.IGNORED if rules.match_file(path) else (path, file)


def _listing(root: Path, candidates: Iterable[tuple[str, Path] | Skip]) -> Listing:
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
    return language_of(path) or Skip.LANGUAGE


def _usual(path: bytes) -> str | None:
    """A path as text; None where it is not UTF-8 or has control characters: a prompt has a line for it."""
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None
