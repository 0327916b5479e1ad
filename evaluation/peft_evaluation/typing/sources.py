"""Real Python files to make traces of: installed packages that no adapter of this package was tuned on, or a folder."""

from __future__ import annotations

import ast
import importlib.metadata
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from peft_core.errors import InvalidInput, NotFound
from peft_evaluation.typing.keystrokes import partners

PACKAGES = ("pygls", "uvicorn", "typer", "prometheus-client", "anyio", "filelock", "h11", "gguf")
"""Parts of every installation. docs/adapters.md names what the shipped adapters were tuned on: none of these."""
FEWEST_LINES, MOST_LINES = 120, 620
WIDEST = 110
"""Characters of a line."""
LARGEST = 2_000
"""Files of a folder that are looked at."""
_UNTYPED = "\t\r\f\v\0\x1c\x1d\x1e\x85\u2028\u2029"
_SKIPPED = frozenset({"tests", "test", "testing", "vendor", "_vendor", "_click", "node_modules", "build", "dist"})


@dataclass(frozen=True)
class CodeBase:
    """Files that fit."""

    name: str
    root: Path
    """What the files' names are relative to."""
    files: tuple[str, ...]

    def read(self, name: str) -> str:
        """A file's text."""
        return (self.root / name).read_text(encoding="utf-8")


def code_bases(folders: Sequence[Path], random: Random) -> list[CodeBase]:
    """The user's folders, else the packages; files in an order drawn by ``random``.

    Raises NotFound when nothing fits.
    """
    found = [of_folder(folder) for folder in folders] if folders else [of_package(name) for name in PACKAGES]
    found = [each for each in found if each.files]
    if not found:
        raise NotFound(
            "there is no Python file to type",
            why=f"wanted: {FEWEST_LINES} to {MOST_LINES} lines, at most {WIDEST} wide, with functions",
            fix="Give a folder of your code: `--source FOLDER`",
        )
    return [CodeBase(each.name, each.root, tuple(random.sample(each.files, len(each.files)))) for each in found]


def of_package(name: str) -> CodeBase:
    """An installed distribution; without files where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return CodeBase(name, Path(), ())
    root = Path(str(distribution.locate_file("")))
    names = sorted(str(file.as_posix()) for file in distribution.files or () if file.suffix == ".py")
    return CodeBase(f"{name} {distribution.version}", root, tuple(_fitting(root, names)))


def of_folder(folder: Path) -> CodeBase:
    """All Python files below a folder. Raises InvalidInput where there is none such."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder", fix="Give one with Python files: `--source FOLDER`")
    root = folder.resolve()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    return CodeBase(root.name, root, tuple(_fitting(root, names[:LARGEST])))


def _fitting(root: Path, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        parts = Path(name).parts
        if _SKIPPED & set(parts) or parts[-1].startswith(("test_", "conftest", "__")) or ".." in parts:
            continue
        try:
            if fits((root / name).read_text(encoding="utf-8")):
                yield name
        except (OSError, UnicodeDecodeError):
            continue


def fits(text: str) -> bool:
    """Whether a text is a Python file that can be typed: one kind of line end, no tabs, nothing on empty lines."""
    lines = text.split("\n")
    if not FEWEST_LINES <= len(lines) <= MOST_LINES or any(mark in text for mark in _UNTYPED):
        return False
    if any(len(line) > WIDEST or (line and not line.strip()) for line in lines):
        return False
    try:
        partners(text)
        tree = ast.parse(text)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return False
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree))
