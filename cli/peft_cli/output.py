"""What all commands share: output, errors, exit codes, checks for optional packages, interrupts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec
import typer

from peft_cli.terminal import plain
from peft_core.errors import (
    FREE_SPACE,
    Cancelled,
    InvalidInput,
    NoSpace,
    NotFound,
    PeftDaemonError,
    UnusablePath,
    is_full,
)
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_core.wire_errors import error_body
from peft_daemon.engines.waiting import set_wait_policy

TRACEBACK = "PEFT_DAEMON_TRACEBACK"
"""Environment variable; if it is set, tracebacks of unexpected errors are shown."""
MAX_REASON_CHARS = 300

TUNE_PACKAGES = ("torch", "transformers", "peft", "accelerate")
EVAL_PACKAGES = (*TUNE_PACKAGES, "sacrebleu", "bm25s", "jinja2")
RAY_PACKAGES = ("ray",)

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds of ``30m``, ``90s`` or ``1h``; raises InvalidInput, also for none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None or not float(match[1]):
        raise InvalidInput(f"{text!r} is not a time", fix="Give a number and a unit, as in 90s, 30m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def emit(value: object, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or call ``text`` to print it for people."""
    if as_json:
        _print_json(value)
    else:
        text()


def report(error: PeftDaemonError, *, as_json: bool) -> int:
    """Print an error as JSON to stdout or as a line to stderr; returns the exit code."""
    if as_json:
        body = msgspec.to_builtins(error_body(error))
        del body["type"]  # for clients of the HTTP API
        _print_json({"error": body})
    else:
        line = plain(error.line) if sys.stderr.isatty() else error.line
        sys.stderr.write(f"peft-daemon: {line}\n")
    return error.exit_code


def expected(error: Exception) -> PeftDaemonError:
    """Return any error as a PeftDaemonError; the traceback of an unexpected one goes to a file or to stderr."""
    if isinstance(error, PeftDaemonError):
        return error
    if is_full(error):
        return NoSpace("the disk is full", why=str(error), fix=FREE_SPACE)
    if isinstance(error, OSError) and error.filename:
        return UnusablePath(error)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
        fix = "Please report it"
    elif (file := _keep_traceback(error)) is not None:
        fix = f"Its traceback is in {file}; please report it"
    else:
        fix = f"`{TRACEBACK}=1` before the command shows its traceback; please report it"
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARS]
    return PeftDaemonError("an unexpected error", why=reason, fix=fix)


def _keep_traceback(error: Exception) -> Path | None:
    """Write the traceback to a file that only this user can read; None if that is not possible."""
    from peft_core.files import require_private_folder, write_private

    try:
        file = require_private_folder(Paths.from_environment().state) / "last-traceback.txt"
        write_private(file, "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
    except (PeftDaemonError, OSError):
        return None
    return file


def escape_unprintable_output() -> None:
    """Escape characters that the console cannot show, which would end a command with an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # With all characters escaped that are not ASCII.
        text = json.dumps(json.loads(text), indent=2)
    sys.stdout.write(text + "\n")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C becomes Cancelled."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise Cancelled("interrupted") from None


def require_extra(what: str, extra: str, packages: tuple[str, ...]) -> None:
    """Check that the packages of an extra are installed, and keep them offline and quiet.

    Also applies the setting ``wait_policy``. Raises NotFound naming the packages that ``what`` needs and the command
    that installs them.
    """
    from peft_core.http_download import keep_libraries_offline

    # Before torch is loaded.
    set_wait_policy(resolve(user_file=Paths.from_environment().config_file).settings.wait_policy)
    # bitsandbytes searches the hub for kernels when it is imported.
    keep_libraries_offline(os.environ)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in ("bitsandbytes", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise NotFound(f"{what} needs {', '.join(missing)}", fix=f"Install the extra: {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that adds the extra to this installation, from where the package itself was installed."""
    wanted = f"peft-daemon[{extra}]"
    try:
        origin = json.loads(distribution("peft-daemon").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if origin.get("dir_info", {}).get("editable"):
        wanted = f"-e {shlex.quote(f'{url2pathname(urlsplit(url).path)}[{extra}]')}"
    else:
        wanted = shlex.quote(f"{wanted} @ {url}" if url else wanted)
    return f"{shlex.quote(sys.executable)} -m pip install {wanted}"


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the work as Ctrl-C does, so that child processes end too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        ctrl_c = signal.getsignal(signal.SIGINT)
        if callable(ctrl_c):
            ctrl_c(signal.SIGINT, frame)  # asyncio has a handler of its own, which cancels its task
        else:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # Under nohup a closed terminal must be ignored; handlers can be set in the main thread only.
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        handled = []
    previous = [(number, signal.signal(number, interrupt)) for number in handled]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
