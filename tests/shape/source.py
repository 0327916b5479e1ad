"""What the product's source looks like: files, their lengths, and names that mean two things."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(f"{folder}/peft_{folder}" for folder in ("core", "daemon", "tuning", "evaluation", "lsp", "cli"))


@dataclass(frozen=True)
class SourceFile:
    """A Python file of the product."""

    package: str
    path: str
    lines: int
    names: tuple[str, ...]
    """Classes, at any depth, and type aliases."""


def files() -> list[SourceFile]:
    """All Python files of the product."""
    return [
        SourceFile(
            package=package.partition("/")[2],
            path=str(path.relative_to(ROOT)),
            lines=len((text := path.read_text(encoding="utf-8")).splitlines()),
            names=tuple(_type_names(ast.parse(text))),
        )
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def median_lines(of: list[SourceFile]) -> float:
    """Median length; `__init__.py` files that hold no code are counted too."""
    return statistics.median(file.lines for file in of)


def duplicate_names(of: list[SourceFile]) -> dict[str, list[str]]:
    """Names of classes and type aliases that are defined more than once, and where."""
    where: dict[str, list[str]] = defaultdict(list)
    for file in of:
        for name in file.names:
            where[name].append(file.path)
    return {name: paths for name, paths in sorted(where.items()) if len(paths) > 1}


def _type_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) if name[0].isupper() and not name.isupper() and len(name) > 1:
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name
