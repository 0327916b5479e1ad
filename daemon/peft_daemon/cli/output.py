"""How the command line speaks: text for people, JSON for programs, errors as one line and an exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from peft_daemon.errors import Cancelled, PeftDaemonError

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def emit(value: object, *, as_json: bool, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or call ``text`` to print it for people."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    else:
        text()


def report(error: PeftDaemonError, *, as_json: bool) -> int:
    """Print an error the way the caller reads output; returns the exit code to leave with."""
    if as_json:
        body = {"code": error.code, "message": error.line, "what": error.what, "why": error.why, "fix": error.fix}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode({"error": body}), indent=2).decode() + "\n")
    else:
        sys.stderr.write(f"peft-daemon: {error.line}\n")
    return error.exit_code


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C becomes Cancelled."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise Cancelled("interrupted") from None
