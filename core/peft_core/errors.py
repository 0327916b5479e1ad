"""The errors a user can meet: what happened, why, and what to type next.

Every failure that crosses a module boundary is one of these. The command line turns them into one line and an
exit code, the daemon into an HTTP status and a JSON body; nothing else in the product formats an error.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar


class PeftDaemonError(Exception):
    """Base of all expected failures.

    ``what`` happened, ``why`` (may be empty) and ``fix``: the next command to type or value to give.
    ``code`` is a stable identifier for programs, ``status`` the HTTP status, ``exit_code`` the process's.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(self.line)

    @property
    def cause(self) -> str:
        """What happened and why, as one line of text, for whoever says what to do beside it."""
        return f"{self.what}: {self.why}" if self.why else self.what

    @property
    def line(self) -> str:
        """The error as one line of text."""
        return error_line(self.cause, self.fix)


def error_line(cause: str, fix: str) -> str:
    """Return an error as one line of text: what happened and why, and what to do."""
    return ". ".join(part for part in (cause, fix) if part)


class InvalidInput(PeftDaemonError):
    """A value the user or a client gave cannot be used."""

    code, status, exit_code = "invalid_input", 400, 2


class NotFound(PeftDaemonError):
    """A model, adapter, file or route that does not exist."""

    code, status, exit_code = "not_found", 404, 3


class Unauthorized(PeftDaemonError):
    """No token or a wrong one."""

    code, status, exit_code = "unauthorized", 401, 4


class Forbidden(PeftDaemonError):
    """A Host or Origin header that is not this machine's, or a server that the user has not agreed to."""

    code, status, exit_code = "forbidden", 403, 4


class TooLarge(PeftDaemonError):
    """A body, file or document above its limit."""

    code, status, exit_code = "too_large", 413, 2


class Conflict(PeftDaemonError):
    """The request contradicts the present state, e.g. an adapter made for another base."""

    code, status, exit_code = "conflict", 409, 5


class UnusablePath(Conflict):
    """A file or folder that the system does not let this user use as it has to be used."""

    def __init__(self, error: OSError, path: object = None) -> None:
        correct = "Correct it or its permissions, or set PEFT_DAEMON_HOME to a folder of your own"
        super().__init__(
            f"cannot use {path or error.filename}",
            why=error.strerror or str(error),
            fix=FREE_SPACE if is_full(error) else correct,
        )


class Unavailable(PeftDaemonError):
    """The model is still loading, the engine is restarting, or no daemon runs: try again later."""

    code, status, exit_code = "unavailable", 503, 6


class EngineFailed(PeftDaemonError):
    """The engine's process died or answered nonsense."""

    code, status, exit_code = "engine_failed", 502, 7
    is_certain: ClassVar[bool] = False
    """Whether the same would happen again if it were tried at once, so that requests need not wait for that."""


class UnusableFile(EngineFailed):
    """A file that an engine was to load is missing, or is not the one that was verified."""

    is_certain = True


class MemoryShortage(EngineFailed):
    """An engine's model needs more memory than the user allows or the machine has left."""

    is_certain = True


class DownloadFailed(PeftDaemonError):
    """A model could not be fetched or did not match its sha256."""

    code, status, exit_code = "download_failed", 502, 8


class NoSpace(PeftDaemonError):
    """The disk is full; what was saved before is untouched."""

    code, status, exit_code = "no_space", 507, 9


class Cancelled(PeftDaemonError):
    """The user interrupted long work; what was done so far is kept where it can be resumed."""

    code, status, exit_code = "cancelled", 499, 130


FREE_SPACE = "Free some space, then give the same command again"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_NATIVE_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as safetensors, tell the system's error."""


def is_full(error: BaseException) -> bool:
    """Return whether a write failed for want of room: a full disk, a quota, or a limit on file sizes."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    told = _NATIVE_ERROR.search(str(error))
    return told is not None and int(told[1]) in _DISK_FULL
