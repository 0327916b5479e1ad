"""Clients of several versions or settings in one home: which daemon serves which, and what the user is told of it.

The newest installation serves all that speak its protocol; an older one does not replace its daemon. So installations
of different versions that are used in turn replace a daemon once and not each time. Within one installation a daemon or
a client whose version is no longer the installed one has outlived an update.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import peft_core
from peft_core.api_types import PROTOCOL_VERSION
from peft_core.errors import Conflict
from peft_core.files import read_private, require_private_folder, write_private
from peft_core.paths import Paths
from peft_core.settings import Settings
from peft_daemon.lifecycle.runtime_info import DaemonInfo

REPLACED_TOLD_S = 7 * 86_400.0
"""How long the user is told that a daemon of another installation was replaced."""
MANY_RESTARTS, RESTARTS_COUNTED_S = 3, 600.0
"""So many restarts for other settings, within this time, are told: somebody who changes a setting causes one."""
_TWO = "two installations use this home"
_ADVICE = "update the older one, or give it a home of its own with PEFT_DAEMON_HOME"


def own_installation() -> str:
    """Return the folder of the code that runs, which tells installations apart."""
    return str(Path(peft_core.__file__).resolve().parent)


def serves(info: DaemonInfo, settings: Settings) -> bool:
    """Whether a daemon serves this client with ``settings``: it has the same version, or a newer one that is in use."""
    if info.protocol != PROTOCOL_VERSION or info.config_digest != settings.digest():
        return False
    return info.version == peft_core.__version__ or _is_newer(info)


def require_replaceable(info: DaemonInfo, settings: Settings, *, replace: bool) -> None:
    """Raise Conflict where a daemon that does not serve this client may not be stopped for it.

    An older client never stops a newer daemon, whose clients would start it again at once. Without ``replace`` a daemon
    with other settings is not stopped either.
    """
    if _is_newer(info):
        raise other_daemon_error(info)
    if not replace and info.config_digest != settings.digest():
        raise Conflict(
            "the daemon was restarted with other settings",
            why=f"it runs with {info.config_digest}, this client wants {settings.digest()}",
            fix="Restart this client (in an editor: the language server), or use the same settings everywhere",
        )


def other_daemon_error(info: DaemonInfo) -> Conflict:
    """Return the error of a client for which this daemon neither serves nor may be stopped."""
    if _has_same_version(info):
        return Conflict(
            "a daemon with other settings was started at the same time",
            why=f"its pid is {info.pid}",
            fix="`peft-daemon stop` ends it; then try again",
        )
    what = (
        f"the daemon is peft-daemon {info.version} (protocol {info.protocol}), "
        f"this client is {peft_core.__version__} (protocol {PROTOCOL_VERSION})"
    )
    if info.installation in ("", own_installation()):
        return Conflict(
            what,
            why="peft-daemon was updated while this client was running",
            fix="Restart this client (in an editor: the language server)",
        )
    other = "runs with other settings" if info.protocol == PROTOCOL_VERSION else "speaks another protocol"
    return Conflict(
        what,
        why=f"it belongs to the newer installation in {info.installation} and {other}",
        fix=f"Use one installation: {_ADVICE}",
    )


def describe_other(info: DaemonInfo) -> str:
    """Return what to tell the user whose daemon is that of another installation and version; empty if it is not."""
    if info.installation in ("", own_installation()) or info.version == peft_core.__version__:
        return ""
    return (
        f"{_TWO}: this is peft-daemon {peft_core.__version__} in {own_installation()}, the "
        f"daemon is {info.version} in {info.installation}. The newer one's serves both; {_ADVICE}"
    )


def with_other(warnings: Sequence[str], info: DaemonInfo) -> list[str]:
    """Return a daemon's warnings, with what ``describe_other`` says if it does not say that itself."""
    other = describe_other(info)
    return [*warnings, *([other] if other and not any(line.startswith(_TWO) for line in warnings) else [])]


class ReplacedDaemon(msgspec.Struct, frozen=True):
    """A daemon of another installation that was stopped for one of a newer version."""

    version: str
    installation: str
    at: float
    """Seconds since the epoch."""


class ReplacedDaemons(msgspec.Struct, frozen=True):
    """The daemons that were stopped for others."""

    older: ReplacedDaemon | None = None
    """The last one of another installation."""
    settings: tuple[float, ...] = ()
    """When the last ones were stopped that had this version and other settings; seconds since the epoch."""


def record_replaced(paths: Paths, info: DaemonInfo) -> None:
    """Remember a daemon that is being stopped because it does not serve a client."""
    known, now = _read_replaced(paths), time.time()
    if _has_same_version(info):
        known = ReplacedDaemons(known.older, (*known.settings, now)[-MANY_RESTARTS:])
    elif info.installation not in ("", own_installation()):
        known = ReplacedDaemons(ReplacedDaemon(info.version, info.installation, now), known.settings)
    require_private_folder(paths.state)
    write_private(_replaced_file(paths), msgspec.json.encode(known))


def describe_replaced(paths: Paths) -> list[str]:
    """Return what to tell the user of daemons that were replaced lately."""
    known = _read_replaced(paths)
    return [line for line in (_describe_older(known.older), _describe_restarts(known.settings)) if line]


def _describe_restarts(times: Sequence[float]) -> str:
    if len(times) < MANY_RESTARTS or any(abs(time.time() - each) > RESTARTS_COUNTED_S for each in times):
        return ""
    return (
        f"clients with different settings use this home in turn: the daemon was restarted {len(times)} times or more "
        f"in {RESTARTS_COUNTED_S / 60:.0f} minutes; use the same settings in all, `peft-daemon config` says where each "
        "comes from"
    )


def _describe_older(replaced: ReplacedDaemon | None) -> str:
    if replaced is None or abs(time.time() - replaced.at) > REPLACED_TOLD_S:
        return ""
    if replaced.version == peft_core.__version__ or not _exists(replaced.installation):
        return ""
    return (
        f"{_TWO}: the daemon of peft-daemon {replaced.version} in {replaced.installation} was "
        f"replaced by this one, which serves both; {_ADVICE}"
    )


def _read_replaced(paths: Paths) -> ReplacedDaemons:
    with contextlib.suppress(Conflict, ValueError, RecursionError):
        if data := read_private(_replaced_file(paths)):
            return msgspec.json.decode(data, type=ReplacedDaemons)
    return ReplacedDaemons()


def _replaced_file(paths: Paths) -> Path:
    return paths.state / "replaced-daemons.json"


def _exists(folder: str) -> bool:
    try:
        return Path(folder).is_dir()
    except (OSError, ValueError):
        return False


def _has_same_version(info: DaemonInfo) -> bool:
    return info.version == peft_core.__version__ and info.protocol == PROTOCOL_VERSION


def _is_newer(info: DaemonInfo) -> bool:
    """Whether a daemon is of a newer version that is still installed, or whose installation is another one."""
    if _order(info.version) <= _order(peft_core.__version__):
        return False
    # After a downgrade the newer daemon's files are gone.
    return info.installation not in ("", own_installation()) or _installed_version() == info.version


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Return a value by which versions are sorted; one before a release (0.2.0rc1) comes before the release."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = tuple(int(part) for part in match[0].split(".")) if match else ()
    rest = version[match.end() if match else 0 :]
    return numbers, rest == "" or rest.startswith((".post", "+")), rest


def _installed_version() -> str:
    try:
        return importlib.metadata.version("peft-daemon")
    except importlib.metadata.PackageNotFoundError:
        return peft_core.__version__
