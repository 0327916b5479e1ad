"""The files that are learned from, and the licence of their folder.

In a repository these are the files that git tracks and no ignore rule names; elsewhere (a library's folder) all files
below it. ``peft_core.code.files`` decides what counts as code.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from peft_core.code import git
from peft_core.code.files import SkipReason, SourceFile, SourceListing, decode_path, list_sources, walk_folder
from peft_core.code.patterns import FilePatterns
from peft_core.errors import InvalidInput
from peft_core.settings import PROJECT_FILE

OWN_CODE = "own code"
"""The licence of a repository without a licence file."""
_LICENCE_PHRASES = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("PSF-2.0", ("python software foundation license",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software",)),
    ("MIT", ("permission is hereby granted, free of charge",)),
    ("Unlicense", ("this is free and unencumbered software",)),
)
"""SPDX ids and the phrases by which each is recognized; the most specific first, as a licence may quote another."""


def repository_files(root: Path) -> SourceListing:
    """List the tracked source files below ``root``, a folder of a git work tree.

    Raises InvalidInput without a work tree or if ``.peft-daemon.toml`` is invalid, Unavailable without git.
    """
    git.require_work_tree(root)
    root = root.resolve()
    rules, base = ignore_rules(root)
    entries = git.tracked_files(root)
    ignored = git.ignored_paths(root)
    attributes = git.path_attributes(root, [each.path for each in entries], ("linguist-generated", "linguist-vendored"))
    marks = {
        SkipReason.IGNORED: ignored,
        SkipReason.GENERATED: attributes["linguist-generated"],
        SkipReason.VENDORED: attributes["linguist-vendored"],
    }

    def candidates() -> Iterator[tuple[str, Path] | SkipReason]:
        for entry in entries:
            path = decode_path(entry.path)
            mark = next((skip for skip, paths in marks.items() if entry.path in paths), None)
            if entry.submodule or entry.link:
                yield SkipReason.SUBMODULE if entry.submodule else SkipReason.LINK
            elif path is None or mark:
                yield mark or SkipReason.NAME
            elif rules.match(base + path):
                yield SkipReason.RULED_OUT
            else:
                yield path, root / path

    return list_sources(root, candidates())


def source_files(roots: Sequence[tuple[Path, str]], ignore: Sequence[str] = ()) -> SourceListing:
    """List the source files below plain folders, each with its licence; ``ignore`` has patterns as in a .gitignore.

    Paths begin with the folder's name. Raises InvalidInput for a missing folder, and for two with the same name.
    """
    rules = FilePatterns(ignore, "the patterns given")
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
        listing = list_sources(root.resolve(), _walk(root.resolve(), rules))
        files += [SourceFile(f"{name}/{f.path}", f.file, f.root, f.language, licence) for f in listing.files]
        skipped.update(listing.skipped)
    return SourceListing(tuple(files), dict(skipped))


def ignore_rules(root: Path) -> tuple[FilePatterns, str]:
    """Return the patterns of ``[tune] ignore`` in the nearest ``.peft-daemon.toml``, and the prefix of paths below it.

    The patterns are read as in a .gitignore in the file's folder. Raises InvalidInput for anything but texts.
    """
    for folder in (root, *root.parents):
        file = folder / PROJECT_FILE
        if file.is_file():
            try:
                table = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("tune", {})
            except (OSError, ValueError, RecursionError) as error:
                raise InvalidInput(f"cannot read {file}", why=str(error), fix="Correct or delete that file") from None
            ignore = table.get("ignore", []) if isinstance(table, dict) else table
            if not isinstance(ignore, list) or not all(isinstance(each, str) for each in ignore):
                raise InvalidInput(
                    f"bad [tune] ignore in {file}", why="it is not a list of texts", fix='Write ignore = ["docs/", …]'
                )
            below = root.relative_to(folder).as_posix()
            return FilePatterns(ignore, str(file)), "" if below == "." else below + "/"
        if (folder / ".git").exists():
            break
    return FilePatterns([], ""), ""


def _walk(root: Path, rules: FilePatterns) -> Iterator[tuple[str, Path] | SkipReason]:
    for each in walk_folder(root):
        yield each if isinstance(each, SkipReason) or not rules.match(each[0]) else SkipReason.IGNORED


def licence_of(root: Path) -> str:
    """Guess the SPDX id of the licence file in ``root``, for the model card; no legal advice.

    Returns ``own code`` without such a file, ``unknown`` if the text is not recognized.
    """
    names = sorted(
        each for each in root.iterdir() if each.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "UNLICENSE"))
    )
    file = next((each for each in names if each.is_file()), None)
    if file is None:
        return OWN_CODE
    words = " ".join(file.read_text(encoding="utf-8", errors="replace")[:20_000].lower().split())
    return next((spdx for spdx, phrases in _LICENCE_PHRASES if all(phrase in words for phrase in phrases)), "unknown")
