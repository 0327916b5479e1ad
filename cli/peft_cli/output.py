"""How the command line speaks: text for people, JSON for programs, errors as one line and an exit code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from peft_core.errors import Cancelled, PeftDaemonError, UnusablePath
from peft_core.paths import Paths
from peft_core.wire_errors import error_body

TRACEBACK = "PEFT_DAEMON_TRACEBACK"
"""Set in the environment: tracebacks of unexpected errors are shown."""
LONGEST_REASON = 300

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def emit(value: object, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or call ``text`` to print it for people."""
    if as_json:
        _print_json(value)
    else:
        text()


def report(error: PeftDaemonError, *, as_json: bool) -> int:
    """Print an error the way the caller reads output; returns the exit code to leave with."""
    if as_json:
        body = msgspec.to_builtins(error_body(error))
        del body["type"]  # for clients of the HTTP API
        _print_json({"error": body})
    else:
        sys.stderr.write(f"peft-daemon: {error.line}\n")
    return error.exit_code


def expected(error: Exception) -> PeftDaemonError:
    """Any error as one with a next step; the traceback of an unexpected one goes to a file or to standard error."""
    if isinstance(error, PeftDaemonError):
        return error
    if isinstance(error, OSError) and error.filename:
        return UnusablePath(error)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
        fix = "Please report it"
    elif (file := _keep_traceback(error)) is not None:
        fix = f"Its traceback is in {file}; please report it"
    else:
        fix = f"`{TRACEBACK}=1` before the command shows its traceback; please report it"
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
    return PeftDaemonError("an error that peft-daemon does not expect", why=reason, fix=fix)


def _keep_traceback(error: Exception) -> Path | None:
    """Write the traceback where only this user can read it; None where that cannot be done."""
    from peft_core.files import require_private_folder, write_private

    try:
        file = require_private_folder(Paths.from_environment().state) / "last-traceback.txt"
        write_private(file, "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
    except (PeftDaemonError, OSError):
        return None
    return file


def speak_any_encoding() -> None:
    """Let no character that the console cannot show end a command that has done its work."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # As JSON escapes it, whatever the console shows.
        text = json.dumps(json.loads(text), indent=2)
    sys.stdout.write(text + "\n")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C becomes Cancelled."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise Cancelled("interrupted") from None
