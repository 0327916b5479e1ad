"""Folders of the ``datasets`` library: what ``save_to_disk`` wrote, and data files in the layout of the hub.

The library reads them offline and row by row; it runs no code of a folder. Which part a row belongs to is told by the
name of its split. A card that names files outside its folder is refused.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from peft_core.errors import InvalidInput
from peft_core.http_download import keep_libraries_offline
from peft_tuning.data.datasets.jsonl import SPLITS, OwnRows
from peft_tuning.data.datasets.rows import DataRow

MAX_ROWS = 200_000
"""Most rows of a split; more would hardly fit into memory."""
MAX_CARD_BYTES, MAX_PATTERNS = 2_000_000, 20_000
CARDS = ("README.md", ".huggingface.yaml")
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What ``save_to_disk`` writes beside one split, and beside folders of several."""
_FRONT = re.compile(r"\A---\s*\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
UNKNOWN_LICENCE = "unknown"


def read_folder(path: Path, *, name: str = "", config: str | None = None, origin: str = "") -> OwnRows:
    """Read a folder; ``config`` names one of several configurations, ``origin`` says where it is from.

    Raises InvalidInput for a folder that the library cannot read, or whose card names files elsewhere.
    """
    dropped: Counter[str] = Counter()
    splits = _open(path, config)
    rows: list[DataRow] = []
    for split, found in splits.items():
        part = _part(split) if len(splits) > 1 or _part(split) != "train" else None
        if len(splits) > 1 and part is None:
            dropped[f"in the split '{split}', which is none of {', '.join(SPLITS)}"] += 1
            continue
        label = Path(f"{path.name}/{split}")
        marked = {} if part is None else {"split": part}
        rows += (DataRow(label, number, values | marked) for number, values in enumerate(_rows(path, found), 1))
    return OwnRows(
        name=name or path.name,
        origin=origin or f"folder {path.name}",
        rows=tuple(rows),
        licence=printable(_licence(path)),
        published_split=True,
        dropped=dropped,
    )


def printable(text: str) -> str:
    """Return a stranger's word without characters that could steer a terminal."""
    return "".join(each if each.isprintable() else "�" for each in text)[:200] or UNKNOWN_LICENCE


def _part(split: str) -> str | None:
    return SPLITS.get(split.lower())


def _open(path: Path, config: str | None) -> Mapping[str, Any]:
    """Return the splits by name, as the library's data sets."""
    keep_libraries_offline(os.environ)
    try:
        # By name: it comes with the tune extra, takes seconds and has no type information.
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        raise InvalidInput(
            f"cannot read {path}", why="a folder needs `datasets`", fix="Type `pip install 'peft-daemon[tune]'`"
        ) from None
    try:
        if (path / _SAVED_SPLITS).is_file() or (path / _SAVED).is_file():
            saved = datasets.load_from_disk(str(path))
            return saved if isinstance(saved, dict) else {"train": saved}
        _require_own_files(path)
        found = datasets.load_dataset(str(path), config, streaming=True)
        return {split: each.decode(enable=False) for split, each in found.items()}
    except InvalidInput:
        raise
    except Exception as error:  # the library and what it reads with raise all kinds
        raise _unreadable(path, error) from None


def _rows(path: Path, found: Any) -> Iterator[dict[str, object]]:
    try:
        for number, values in enumerate(found):
            if number >= MAX_ROWS:
                return
            yield dict(values)
    except Exception as error:  # as above
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InvalidInput:
    why = printable(" ".join(str(error).split()))
    if "Config name is missing" in why:
        return InvalidInput(
            f"{path.name} has several configurations",
            why=why,
            fix="Name one after a colon: `--dataset OWNER/NAME:CONFIG`, or `FOLDER:CONFIG`",
        )
    return InvalidInput(
        f"the folder {path} cannot be read as a data set",
        why=why,
        fix="Give a folder of `datasets.save_to_disk`, one with .parquet, .jsonl or .csv files, or one such file",
    )


def _require_own_files(path: Path) -> None:
    """Raise InvalidInput if the folder's card names data files that do not lie in it."""
    for card in CARDS:
        patterns = _patterns(_front_matter(path / card, whole=card != CARDS[0]).get("configs"))
        for number, pattern in enumerate(patterns):
            parts = PurePosixPath(pattern.replace("\\", "/"))
            if (
                number > MAX_PATTERNS
                or "://" in pattern
                or "::" in pattern
                or parts.is_absolute()
                or ".." in parts.parts
                or ":" in pattern[:3]
            ):
                raise InvalidInput(
                    f"{path / card} names data outside of its folder, or too many files",
                    why=printable(pattern),
                    fix="Give one of its data files instead, or do not use this data set",
                )


def _patterns(value: object) -> Iterator[str]:
    """Yield all texts in a value of YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _patterns(each)
    elif isinstance(value, list):
        for each in value:
            yield from _patterns(each)


def _front_matter(card: Path, *, whole: bool = False) -> dict[str, Any]:
    """Return the values that a card begins with; none if there is no card or it is damaged."""
    yaml: Any = importlib.import_module("yaml")  # comes with the library, without type information
    try:
        if card.stat().st_size > MAX_CARD_BYTES:
            return {}
        text = card.read_text(encoding="utf-8", errors="replace")
        front = text if whole else match[1] if (match := _FRONT.search(text)) else ""
        found = yaml.safe_load(front)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _licence(path: Path) -> str:
    """Return the licence that a card, or the library's own record, tells."""
    told = _front_matter(path / CARDS[0]).get("license")
    if isinstance(told, list):
        told = " and ".join(map(str, told))
    if isinstance(told, str) and told.strip():
        return told.strip()
    for record in (path / "dataset_info.json", *sorted(path.glob("*/dataset_info.json"))):
        try:
            info = msgspec.json.decode(record.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        found = info.get("license") if isinstance(info, dict) else None
        if isinstance(found, str) and found.strip():
            return found.strip()
    return UNKNOWN_LICENCE
