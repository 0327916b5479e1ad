"""What a starter hands to the daemon it spawns: its settings and folders, exactly as it resolved them.

They travel in one environment variable, which only the same user can read; the daemon takes it out again, so that
nothing it starts inherits it. Its own command line, environment and files then decide nothing: the digest both
sides compute is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path

import msgspec

from peft_core.errors import InvalidInput
from peft_core.paths import Paths
from peft_core.settings import Settings

VARIABLE = "PEFT_DAEMON_HANDOVER"


class _Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    settings: Settings
    paths: dict[str, str]


def give(settings: Settings, paths: Paths, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with settings and folders added, for the child."""
    folders = {name: str(path) for name, path in asdict(paths).items()}
    return {**environ, VARIABLE: msgspec.json.encode(_Handover(settings, folders)).decode()}


def take(environ: MutableMapping[str, str]) -> tuple[Settings, Paths] | None:
    """Settings and folders a starter gave, removed from ``environ``; None if this process was not spawned by one.

    Raises InvalidInput when they cannot be read (they come from another version).
    """
    if (text := environ.pop(VARIABLE, None)) is None:
        return None
    try:
        return _read(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"{VARIABLE} cannot be read",
            why=str(error),
            fix="Unset it; only a starting client sets it, and it must be of the same version",
        ) from None


def folders(environ: Mapping[str, str]) -> Paths | None:
    """The folders given to the process with this environment; None if it was not spawned by a starter."""
    try:
        return _read(environ.get(VARIABLE, ""))[1]
    except (ValueError, TypeError, RecursionError):
        return None


def _read(text: str) -> tuple[Settings, Paths]:
    given = msgspec.json.decode(text, type=_Handover)
    return given.settings, Paths(**{name: Path(path) for name, path in given.paths.items()})
