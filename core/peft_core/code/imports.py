"""Code of other files that helps with a file: signatures of the files it imports, else of neighbouring files.

Imports are resolved to paths for Python modules and packages, relative imports of JavaScript and TypeScript, and quoted
includes of C and C++. Sizes are in characters. Callers decide which files may be shown. The order is stable.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from peft_core.api_types import ContextChunk
from peft_core.code.languages import language_of
from peft_core.code.structure import Structure, parse_functions

MAX_CHUNKS = 4
MAX_NEIGHBOURS = 2
MAX_CHUNK_CHARS = 1_200
MAX_CHARS = 3_000
"""Characters of all chunks together: about as many as a prompt of 1,024 tokens has."""
_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<module>\.*[\w.]*)[ \t]+import[ \t]*(?:\((?P<several>[^)]*)\)|(?P<names>[^\n#;]+))"
    r"|import[ \t]+(?P<modules>[\w., \t]+))",
    re.MULTILINE,
)
_SCRIPT = re.compile(r"""(?:\bfrom\s+|\bimport\s+|\brequire\(\s*)["'](\.{1,2}/[^"'\n]+)["']""")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"', re.MULTILINE)
_CLASS = re.compile(r"^(?P<space>[ \t]*)class[ \t]+(?P<name>\w+)[^\n]*:", re.MULTILINE)
_CONSTANT = re.compile(r"^(?P<name>[A-Z][A-Z0-9_]+)\b[^\n]{0,80}$", re.MULTILINE)


@dataclass(frozen=True)
class Signature:
    """An entry of an outline, of one line or a few, and the top-level name that it belongs to."""

    name: str
    text: str


@dataclass(frozen=True)
class Import:
    """A file that is imported, and the names that are imported from it (empty: all)."""

    path: str
    names: frozenset[str] = frozenset()


class RelatedFiles:
    """Finds the files of a repository that are related to a file, among those that may be shown."""

    def __init__(self, paths: Sequence[str], text_of: Callable[[str], str]) -> None:
        """``paths`` may be shown; ``text_of`` returns the text of a path, empty if it cannot be read."""
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[str, list[str]] = defaultdict(list)
        for path in sorted(paths):
            folder, _, name = path.rpartition("/")
            stem = name.rpartition(".")[0]
            self._by_name[folder.rpartition("/")[2] if stem == "__init__" else stem].append(path)
            self._folders[folder].append(path)
        self._outline = lru_cache(maxsize=1024)(lambda path: tuple(find_signatures(text_of(path), path)))

    def chunks(self, path: str, text: str) -> tuple[ContextChunk, ...]:
        """Return chunks of other files for a file, in the order of its imports."""
        chunks: list[ContextChunk] = []
        left = MAX_CHARS
        for each in self.find(path, text):
            signatures = self._outline(each.path)
            named = [one for one in signatures if one.name in each.names]
            chunk = _join_fitting(named or signatures, min(left, MAX_CHUNK_CHARS))
            if chunk:
                chunks.append(ContextChunk(each.path, chunk))
                left -= len(chunk)
            if len(chunks) == MAX_CHUNKS or left <= 0:
                break
        return tuple(chunks)

    def find(self, path: str, text: str) -> Iterator[Import]:
        """Yield the files that a file imports, in that order; its neighbours if it imports none."""
        seen = {path}
        for each in self._imports(path, text):
            if each.path not in seen:
                seen.add(each.path)
                yield each
        if len(seen) == 1:
            yield from map(Import, self._neighbours(path))

    def _imports(self, path: str, text: str) -> Iterator[Import]:
        language = language_of(path)
        if language == "python":
            for match in _PYTHON.finditer(text):
                yield from self._python(path, match)
        elif language in {"c", "cpp"}:
            for name in _INCLUDE.findall(text):
                stem = name.rpartition("/")[2].rpartition(".")[0]
                yield from map(Import, self._nearest(path, [f for f in self._by_name[stem] if _ends_with(f, name)]))
        elif language and language.startswith(("javascript", "typescript")):
            for name in _SCRIPT.findall(text):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
                ends = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", "/index.ts", "/index.js")
                yield from (Import(target + end) for end in ends if target + end in self._paths)

    def _python(self, path: str, match: re.Match[str]) -> Iterator[Import]:
        if match["modules"]:
            for module in match["modules"].split(","):
                yield from map(Import, self._module(path, module.split(" as ")[0].strip())[:1])
            return
        listed = re.sub(r"#[^\n]*", "", match["several"] or match["names"] or "")
        names = [name.split(" as ")[0].strip() for name in listed.split(",")]
        taken: list[str] = []
        for name in filter(None, names):
            dot = "" if match["module"].endswith(".") else "."
            submodule = self._module(path, f"{match['module']}{dot}{name}")
            if submodule:
                yield Import(submodule[0])
            else:
                taken.append(name)
        if taken and (module := self._module(path, match["module"])):
            yield Import(module[0], frozenset(taken))

    def _module(self, path: str, module: str) -> list[str]:
        dots = len(module) - len(module.lstrip("."))
        tail = module[dots:].replace(".", "/")
        if dots:
            folder = posixpath.normpath(posixpath.join(posixpath.dirname(path), "../" * (dots - 1), tail))
            return [f for f in (f"{folder}.py", f"{folder}/__init__.py") if f in self._paths]
        found = [
            f for f in self._by_name[tail.rpartition("/")[2]] if _ends_with(f, tail + ".py", tail + "/__init__.py")
        ]
        if "/" not in tail:  # ``import re`` is the standard library unless a re.py is in this folder or above
            found = [f for f in found if path.startswith(f.removesuffix("/__init__.py").rpartition("/")[0])]
        return self._nearest(path, found)

    def _nearest(self, path: str, found: list[str]) -> list[str]:
        """Return the candidate that shares most folders with the file."""
        return sorted(found, key=lambda f: (-len(posixpath.commonprefix([f, path])), len(f), f))[:1]

    def _neighbours(self, path: str) -> list[str]:
        """Return files of the same folder and language, those nearest in the alphabet first."""
        folder = self._folders[path.rpartition("/")[0]]
        at = bisect_left(folder, path)
        language = language_of(path)
        near = sorted(
            (f for f in folder[max(0, at - 8) : at + 9] if f != path and language_of(f) == language),
            key=lambda f: (abs(folder.index(f) - at), f),
        )
        return near[:MAX_NEIGHBOURS]


def find_signatures(text: str, path: str) -> Iterator[Signature]:
    """Yield the signatures of a file in their order; its first lines if it has none."""
    language = language_of(path) or ""
    found = parse_functions(text, language)
    if language == "python":
        yield from _python_outline(found)
    elif found.functions:
        for function in found.outermost:
            row = found.text.row(function.span.start)
            yield Signature(function.name, found.text.lines[row].rstrip())
    else:
        yield from (Signature("", line) for line in found.text.lines[:30] if line.strip())


def _python_outline(found: Structure) -> Iterator[Signature]:
    text = found.text.text
    entries: list[tuple[int, int, str, str]] = []
    for match in _CLASS.finditer(text):
        if found.text.row(match.start()) not in found.opaque:
            entries.append((match.start(), len(match["space"]), match["name"], match[0]))
    for match in _CONSTANT.finditer(text):
        if found.text.row(match.start()) not in found.opaque:
            entries.append((match.start(), 0, match["name"], match[0]))
    for function in found.outermost:
        start = found.text.starts[found.text.row(function.span.start)]
        body = function.docstring or function.body
        header = text[start : body.start].rstrip() if body else text[start : function.span.end].split("\n")[0]
        entries.append((start, function.span.start - start, function.name, f"{header} ..."))
    owner = ""
    for _start, column, name, line in sorted(entries):
        owner = owner if column else name
        if not name.startswith("_") or name == "__init__":
            yield Signature(owner, line)


def _join_fitting(signatures: Sequence[Signature], room: int) -> str:
    """Join as many whole signatures as fit into ``room`` characters."""
    lines: list[str] = []
    for each in signatures:
        room -= len(each.text) + 1
        if room < 0:
            break
        lines.append(each.text)
    return "\n".join(lines)


def _ends_with(path: str, *tails: str) -> bool:
    return any(path == tail or path.endswith("/" + tail) for tail in tails)
