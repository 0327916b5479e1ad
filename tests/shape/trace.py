"""Which files of the product some work passes through, and which of its value types are made on the way.

Every module with a function that was called counts as a file. A value type counts if it is public and frozen (a
dataclass, or one of msgspec's structs): the work, or its answer, is turned into it and goes in it from one module to
another. Not counted are private types (a leading underscore), which stay in their module, values that are made when a
module is imported, as constants are, and the lexer's types, which describe any text that is scanned.

``install`` comes before the product is imported: its functions then report each call, and value types each value.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from shape.source import PACKAGES, ROOT

Function = tuple[str, str, int]
"""File, name, line."""
ENTERED, MADE = "__function_entered__", "__value_made__"
SCANNERS = ("core/peft_core/code/lexer.py",)
"""Files whose types describe a text that was scanned."""
_traces: list[Trace] = []


@dataclass
class Trace:
    """What was called and made while it was on."""

    calls: Counter[Function] = field(default_factory=Counter)
    """In the order of the first call."""
    values: Counter[str] = field(default_factory=Counter)

    def files(self, least: int = 1) -> list[str]:
        """Files with a function that was called so often, in the order in which they are met."""
        return list(dict.fromkeys(file for (file, _, _), count in self.calls.items() if count >= least))

    def returns(self) -> int:
        """How often somebody who reads each function once, in the order of calls, comes back to a file left before."""
        visited: list[str] = []
        back = 0
        for file, _, _ in self.calls:
            if visited and visited[-1] == file:
                continue
            back += file in visited
            visited.append(file)
        return back

    def made(self, least: int = 1) -> list[str]:
        """Value types of which so many values were made."""
        return sorted(name for name, count in self.values.items() if count >= least)


@contextmanager
def tracing() -> Iterator[Trace]:
    """Trace this process; ``install`` has been called."""
    trace = Trace()
    _traces.append(trace)
    try:
        yield trace
    finally:
        _traces.remove(trace)


def install() -> None:
    """Have the product's functions and value types report; it must not be imported yet."""
    assert not any(name.startswith("peft_") and name != "peft" for name in sys.modules), "too late"
    sys.meta_path.insert(0, _Finder())


def _function_entered(file: str, name: str, line: int) -> None:
    for trace in _traces:
        trace.calls[file, name, line] += 1


def _value_made(value: object) -> None:
    for trace in _traces:
        trace.values[type(value).__name__] += 1


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(tuple(package.partition("/")[2] for package in PACKAGES)):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        file = Path(self.path).relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = file, node.name, node.lineno
                _before(node, f"{ENTERED}{where}")
        for node in ast.walk(tree) if file not in SCANNERS else ():
            if isinstance(node, ast.ClassDef) and _is_value(node):
                _report(node)
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update({ENTERED: _function_entered, MADE: _value_made})
        super().exec_module(module)


def _is_value(node: ast.ClassDef) -> bool:
    """Whether this is a public frozen dataclass or one of msgspec's structs."""
    bases = any("Struct" in ast.unparse(base) for base in node.bases)
    decorators = any(
        "dataclass" in (text := ast.unparse(each)) and "frozen=True" in text for each in node.decorator_list
    )
    return not node.name.startswith("_") and (bases or decorators)


def _report(node: ast.ClassDef) -> None:
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__post_init__":
            _before(each, f"{MADE}(self)")
            return
    (made,) = ast.parse(f"def __post_init__(self):\n    {MADE}(self)").body
    node.body.append(made)


def _before(function: ast.FunctionDef | ast.AsyncFunctionDef, call: str) -> None:
    """Put a call in front of a function's statements, behind its docstring."""
    (statement,) = ast.parse(call).body
    function.body.insert(int(ast.get_docstring(function) is not None), statement)
