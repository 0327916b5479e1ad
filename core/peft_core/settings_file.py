"""Write one value into the user's settings file; every other line and comment of it stays."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from peft_core.errors import Conflict, InvalidInput, UnusablePath
from peft_core.files import private_folder, write_private

Value = str | int | bool
_BYTE_ORDER_MARK = "\ufeff"
_VALUE = r'(?:"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|true|false|[+-]?[0-9][0-9_]*)'
"""A value of the settings as TOML writes it."""


def write_setting(file: Path, name: str, value: Value | None) -> bool:
    """Set ``name`` to ``value`` in the user's file, which need not exist; returns whether anything changed.

    With None its line is removed, so that the default counts again.

    Its other lines and comments stay. The file is flat, so a value is one line, and a line can be exchanged; the result
    is parsed and compared with what was wanted, so that a file is never written that says anything else.
    A link is followed, so that a file that is kept elsewhere stays a link. The file is replaced in one step and
    readable by its owner only. Raises InvalidInput if it is not TOML, Conflict if its line cannot be exchanged,
    UnusablePath if it cannot be read or written.
    """
    try:
        private_folder(file.parent)
    except OSError as error:
        raise UnusablePath(error, file) from None
    file = file.resolve()
    content = _read_text(file)
    before = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        had = tomllib.loads(before)
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None
    if same_value(had.get(name), value):
        return False
    after = without_setting(before, name) if value is None else with_setting(before, name, value)
    wanted = {key: each for key, each in {**had, name: value}.items() if each is not None}
    if not _means(after, wanted):
        raise Conflict(
            f"`{name}` cannot be changed in {file}",
            why="its value is not on a line of its own",
            fix="Delete it there" if value is None else f"Write this line in its place: {_line(name, value)}",
        )
    write_private(file, (content[: len(content) - len(before)] + after).encode())
    return True


def same_value(one: object, other: object) -> bool:
    """Return whether two values of TOML are the same; ``true`` is not 1."""
    return type(one) is type(other) and one == other


def with_setting(content: str, name: str, value: Value) -> str:
    """Return the lines of ``content`` with ``name = value``: in place of the line it has, else at the end.

    A comment behind the value stays. The ends of the lines are those that the file has.
    """
    pattern = re.compile(rf"^({_key(name)}){_VALUE}", re.MULTILINE)
    written, count = pattern.subn(lambda found: found[1] + _toml(value), content, count=1)
    if count:
        return written
    end = "\r\n" if "\r\n" in content else "\n"
    return content + (end if content and not content.endswith("\n") else "") + _line(name, value) + end


def without_setting(content: str, name: str) -> str:
    """Return ``content`` without the line of ``name``, with the comment behind its value."""
    pattern = re.compile(rf"^{_key(name)}{_VALUE}[^\S\r\n]*(?:#[^\r\n]*)?(?:\r?\n|\Z)", re.MULTILINE)
    return pattern.sub("", content, count=1)


def _key(name: str) -> str:
    return rf"[^\S\r\n]*(?:{name}|\"{name}\"|'{name}')[^\S\r\n]*=[^\S\r\n]*"


def _line(name: str, value: Value) -> str:
    return f"{name} = {_toml(value)}"


def _toml(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)  # strings, integers and truth values are written alike in JSON


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise _unreadable(file, error) from None
    except OSError as error:
        raise UnusablePath(error, file) from None


def _means(content: str, wanted: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(content) == wanted
    except (ValueError, RecursionError):
        return False


def _unreadable(file: Path, error: Exception) -> InvalidInput:
    return InvalidInput(f"cannot read {file}", why=str(error), fix="Correct or delete that file")
