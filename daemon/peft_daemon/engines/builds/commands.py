"""Run a long command with its output in a log, and end all that it started when it is interrupted.

A build tool starts compilers in process groups of their own, so a signal to one group does not reach them. All of them
belong to the session of the command that was started.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from peft_core import processes

GRACE_S = 5.0
"""How long ended processes have to clean up before they are killed."""
NICENESS = 10
"""Compilers take only the time that other programs leave."""

MAX_ERROR_CHARS = 300


def output_lines(command: Sequence[str], log: IO[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Run ``command``, yield the lines of its output and append them to ``log``; raises CommandFailed, OSError.

    When the iteration is given up or interrupted, everything that the command started is ended.
    """
    log.write(f"$ {' '.join(command)}\n")
    process = processes.start(
        command,
        environ=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        # A terminal's Ctrl-C goes to this process alone, which then ends the others in order.
        start_new_session=sys.platform != "win32",
    )
    try:
        with contextlib.suppress(psutil.Error, OSError):
            psutil.Process(process.pid).nice(_niceness())
        assert process.stdout is not None  # noqa: S101  (PIPE was asked for)
        with process.stdout:
            for line in process.stdout:
                log.write(line)
                yield line.rstrip("\n")
        code = process.wait()
    except BaseException:
        end_session(process)
        raise
    finally:
        log.flush()
    if code:
        raise CommandFailed(code)


def _niceness() -> int:
    if sys.platform == "win32":
        return psutil.BELOW_NORMAL_PRIORITY_CLASS
    return NICENESS


class CommandFailed(Exception):
    """The command ended with an exit code that is not 0."""


def end_session(process: subprocess.Popen[Any]) -> None:
    """End the process and everything that it started, and return when none of it lives any more."""
    members = _session(process)
    for each in members:
        with contextlib.suppress(psutil.Error):
            each.terminate()
    psutil.wait_procs(members, timeout=GRACE_S)
    # What was started meanwhile too.
    while members := _session(process):
        for each in members:
            with contextlib.suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(members, timeout=GRACE_S)
    process.wait()


def _session(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """Return the live processes of its session; on Windows, which has none, those below it."""
    if sys.platform == "win32":
        try:
            parent = psutil.Process(process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return []
    members = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(each.pid) == process.pid and each.status() != psutil.STATUS_ZOMBIE:
                members.append(each)
    return members


def first_error(log: Path) -> str:
    """Return what a build's log names first as an error, else its last line; empty for no log."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    said = [line for line in lines if line]
    for position, line in enumerate(said):
        if line.startswith("CMake Error"):
            return " ".join(said[position : position + 2])[:MAX_ERROR_CHARS]
        if "error:" in line.lower():
            return line[:MAX_ERROR_CHARS]
    return said[-1][:MAX_ERROR_CHARS] if said else ""
