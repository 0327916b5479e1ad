"""Starting a confined process and ending it for certain. Knows nothing of what runs in it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO

import msgspec

from peft_core.processes import start
from peft_evaluation.sandbox.base import Limits, Sandbox


def handed(content: bytes) -> int:
    """A new file descriptor from which ``content`` can be read to its end."""
    descriptor = os.memfd_create("handed")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Process:
    """One confined process; use it in a ``with`` block, at whose end nothing of it is left."""

    def __init__(
        self,
        sandbox: Sandbox,
        script: str,
        job: dict[str, object],
        limits: Limits,
        *,
        descriptors: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        """``job`` is what the script reads; ``descriptors`` are inherited, their numbers the script's arguments."""
        content = job | {
            "seconds": int(limits.seconds) + 2,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
        }
        number = handed(msgspec.json.encode(content))
        launch = sandbox.launch(script, [str(number), *map(str, descriptors)], limits)
        folder = tempfile.TemporaryDirectory(prefix="pd-run-")
        try:
            self._process = start(
                launch.command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(number, *descriptors, *launch.descriptors),
                start_new_session=True,
                cwd=folder.name,
                environ={},
            )
        except BaseException:
            folder.cleanup()
            raise
        finally:
            for descriptor in (number, *launch.descriptors):
                os.close(descriptor)
        self._folder = folder

    def __enter__(self) -> Process:
        return self

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None when it has not ended by then."""
        # Popen.wait looks again and again at growing intervals, which costs more than most programs take.
        ended = os.pidfd_open(self._process.pid)
        try:
            ready, _, _ = select.select([ended], [], [], max(seconds, 0.0))
        finally:
            os.close(ended)
        return self._process.wait() if ready else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()
