"""What was recorded of the product's surface, and what makes two recordings comparable.

RECORD_SNAPSHOTS=1 python -m pytest tests/snapshots      records anew; look at `git diff tests/snapshots`
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("recorded")
STABLE = frozenset(
    {"event", "finish_reason", "format", "kind", "method", "object", "owned_by", "state", "status", "stop_type", "type"}
)
"""Keys whose values are words of the interface."""
CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"(?<![0-9a-z])[0-9a-f]{12,64}(?![0-9a-z])"), "<hex>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T_ -]?\d\d[-:]?\d\d[-:]?\d\d[\d.]*(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"([de])-[0-9a-f]{8}\.sock"), r"\1-<name>.sock"),
)


def check(name: str, value: Any) -> None:
    """Hold ``value`` against what was recorded under this name, or record it where that is asked."""
    file = FOLDER / f"{name}.json"
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("RECORD_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    recorded = file.read_text(encoding="utf-8")
    difference = "\n".join(unified_diff(recorded.splitlines(), text.splitlines(), "recorded", "found", lineterm=""))
    assert json.loads(text) == json.loads(recorded), f"{file} differs; see {__file__}\n{difference}"


def plain(text: str) -> str:
    """The text without what is another in each run."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def shape(value: Any, key: str = "") -> Any:
    """Keys and types of a JSON value; of words that belong to the interface the words."""
    if isinstance(value, Mapping):
        return merged((plain(k), shape(v, k)) for k, v in value.items())
    if isinstance(value, list):
        return [_one_of(shape(each, key) for each in value)] if value else []
    if isinstance(value, str):
        return f"= {plain(value)}" if key in STABLE else "text"
    return {bool: "yes or no", int: "number", float: "number", type(None): "null"}[type(value)]


def merged(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """One shape for each name: several files of a kind are compared by all that they may have."""
    found: dict[str, list[Any]] = {}
    for name, each in pairs:
        found.setdefault(name, []).append(each)
    return {name: _one_of(each) for name, each in found.items()}


def _one_of(shapes: Iterable[Any]) -> Any:
    """One shape that says what all of these may be."""
    different: list[Any] = []
    for each in shapes:
        if each not in different:
            different.append(each)
    if len(different) == 1:
        return different[0]
    objects = [each for each in different if isinstance(each, dict)]
    if len(objects) > 1:
        names = sorted({name for each in objects for name in each})
        one: Any = {}
        for name in names:
            missing = any(name not in each for each in objects)
            one[name + ("?" if missing else "")] = _one_of(each[name] for each in objects if name in each)
        different = [one, *(each for each in different if not isinstance(each, dict))]
    arrays = [each for each in different if isinstance(each, list)]
    if len(arrays) > 1:
        different = [each for each in different if not isinstance(each, list)]
        different.append([_one_of(item for each in arrays for item in each)])
    if len(different) == 1:
        return different[0]
    return {"one of": sorted(different, key=lambda each: json.dumps(each, sort_keys=True))}


def fields(schema: Any) -> Any:
    """A JSON schema without the names and docstrings of classes, and without references."""
    return _resolved(schema, schema.get("$defs", {}))


def _resolved(part: Any, named: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolved(each, named) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolved(named[part["$ref"].rpartition("/")[2]], named)
    properties = {name: _resolved(each, named) for name, each in part.get("properties", {}).items()}
    others = {
        key: _resolved(each, named)
        for key, each in part.items()
        if key not in ("$defs", "title", "description", "properties")
    }
    return others | ({"properties": properties} if properties else {})


def tree(folder: Path) -> dict[str, str]:
    """Relative paths below a folder, and their modes."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        kind = "folder" if path.is_dir() else "socket" if path.is_socket() else "file"
        found[plain(str(path.relative_to(folder)))] = f"{kind} {path.lstat().st_mode & 0o777:o}"
    return found
