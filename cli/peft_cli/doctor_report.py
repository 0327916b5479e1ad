"""The file of ``doctor --report``: what a stranger needs to help, without what is nobody's business.

Each part of the report is a text. Before it is written, tokens, keys, passwords, the name of the user and of the
machine, and the path of the home folder are replaced. No part has code: none of its sources has any.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import io
import os
import platform
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psutil

from peft_cli.output import expected, run
from peft_core import __version__
from peft_core.decisions import MAX_DECISIONS, WhyQuery
from peft_core.errors import Conflict, UnusablePath
from peft_core.files import free_bytes, write_private
from peft_core.paths import Paths
from peft_core.privacy.values import MASK, masked
from peft_core.processor import processor_name
from peft_core.settings import Resolved
from peft_daemon.client import DaemonClient
from peft_daemon.lifecycle.failed_starts import read_failed_starts
from peft_daemon.lifecycle.runtime_info import find_running_daemon

LOG_LINES = 500
MAX_REPORTED_LOG_BYTES = 200_000
PACKAGES = ("xllamacpp", "msgspec", "starlette", "uvicorn", "h11", "pygls", "torch", "transformers", "peft")
NO_ONE = frozenset({"root", "user", "admin", "localhost"})
"""Names of users and machines that tell nothing, and are words of other things."""

README = """\
What `peft-daemon doctor --report` found on this machine, for somebody who helps.

{contents}

Replaced: tokens, keys and passwords by {mask}, the home folder by ~, the names of the user and of this
machine by <user> and <machine>. There is no code, no prompt and no suggestion in it. Names of files, folders,
adapters and models are: read it before you send it. Nothing was sent anywhere.
"""


class ReportFile(msgspec.Struct, frozen=True):
    """The report that was written."""

    path: str
    bytes: int
    parts: list[str]


def write_report(file: Path, checks: Sequence[object], resolved: Resolved, paths: Paths) -> ReportFile:
    """Write the report; raises Conflict if the file is there, UnusablePath if it cannot be written."""
    if file.exists():
        raise Conflict(f"{file} is there already", fix="Name another file, or remove that one")
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "checks.json": ("the checks of `doctor`", lambda: _json(checks)),
        "machine.json": ("system, processor, memory, disk, versions", lambda: _json(_machine(paths))),
        "settings.json": ("settings and where each comes from", lambda: _json(_settings(resolved))),
        "status.json": ("`peft-daemon status --json`", lambda: _json(_of_daemon(paths, DaemonClient.status))),
        "metrics.txt": ("the daemon's counters", lambda: str(_of_daemon(paths, DaemonClient.metrics))),
        "why.json": (
            "the last decisions about requests",
            lambda: _json(_of_daemon(paths, lambda client: client.why(WhyQuery(last=MAX_DECISIONS)))),
        ),
        "adapters.json": ("`peft-daemon adapters list --json`", lambda: _json(_adapters(paths))),
        "log.txt": (f"the last {LOG_LINES} lines of the daemon's log", lambda: _tail(paths.log_file)),
        "failed-starts.json": (
            "starts of the daemon that failed lately",
            lambda: _json(read_failed_starts(paths, time.time())),
        ),
        "last-traceback.txt": (
            "the last unexpected error of a command",
            lambda: _tail(paths.state / "last-traceback.txt"),
        ),
    }
    contents = "\n".join(f"    {name:<20}{what}" for name, (what, _) in parts.items())
    redact = redactor(secrets=_secrets(resolved, paths))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", README.format(contents=contents, mask=MASK))
        for name, (_, make) in parts.items():
            archive.writestr(name, redact(_made(make)))
    try:
        write_private(file, packed.getvalue())
    except OSError as error:
        raise UnusablePath(error, file) from None
    return ReportFile(str(file), len(packed.getvalue()), ["README.txt", *parts])


def redactor(*, secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """Return a function that replaces these secrets, all that look like one, and who and where the user is."""
    home, names = str(Path.home()), {getpass.getuser(), Path.home().name}
    replaced = [(re.compile(re.escape(each)), MASK) for each in secrets if each]
    for form in sorted({home, os.path.realpath(home), home.replace("\\", "\\\\")}, key=len, reverse=True):
        if len(form) > 1:
            replaced.append((re.compile(rf"{re.escape(form)}(?![\w.-])"), "~"))
    for shown, given in (("<user>", names), ("<machine>", {platform.node(), platform.node().partition(".")[0]})):
        for name in sorted(given - NO_ONE - {""}, key=len, reverse=True):
            replaced.append((re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE), shown))

    def redact(text: str) -> str:
        for pattern, shown in replaced:
            text = pattern.sub(shown, text)
        return masked(text)

    return redact


def _made(make: Callable[[], str]) -> str:
    """Return a part, or what kept it from being made: one that fails must not keep the others out."""
    try:
        return make()
    except Exception as failure:
        return f"not there: {expected(failure).line}\n"


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _machine(paths: Paths) -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    memory = psutil.virtual_memory()
    return {
        "peft-daemon": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": [psutil.cpu_count(logical=False), psutil.cpu_count()],
        "load": [round(each, 2) for each in psutil.getloadavg()],
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_used_bytes": psutil.swap_memory().used,
        "disk_free_bytes": free_bytes(paths.data),
        "graphics": {name: shutil.which(name) is not None for name in ("nvidia-smi", "vulkaninfo", "rocminfo")},
        "packages": versions,
        "folders": {name: str(getattr(paths, name)) for name in paths.__dataclass_fields__},
    }


def _settings(resolved: Resolved) -> dict[str, Any]:
    values = msgspec.to_builtins(resolved.settings)
    return {name: {"value": _without_login(value), "source": resolved.sources[name]} for name, value in values.items()}


def _without_login(value: object) -> object:
    """Return a setting without the user and password that an address may have."""
    if not isinstance(value, str) or "://" not in value:
        return value
    address = urlsplit(value)
    return urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment=""))


def _of_daemon(paths: Paths, question: Callable[[DaemonClient], Awaitable[object]]) -> object:
    """Return what the running daemon answers; it is not started for that."""

    async def ask() -> object:
        async with await DaemonClient.connect(paths=paths, start=False) as client:
            return await question(client)

    return run(ask())


def _adapters(paths: Paths) -> object:
    from peft_daemon.adapters.registry import AdapterRegistry

    return AdapterRegistry(paths.adapters).list_adapters()


def _tail(file: Path) -> str:
    """Return the last lines of a file."""
    if not file.is_file():
        return "not there\n"
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - MAX_REPORTED_LOG_BYTES))
        lines = opened.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-LOG_LINES:]) + "\n"


def _secrets(resolved: Resolved, paths: Paths) -> list[str]:
    """Return secrets whose values are known: the daemon's token and the upstream server's key and login."""
    info = find_running_daemon(paths)
    variable = resolved.settings.upstream_key_env
    login = urlsplit(resolved.settings.upstream_url).password if resolved.settings.upstream_url else None
    return [
        each for each in (info.token if info else "", os.environ.get(variable, "") if variable else "", login) if each
    ]
