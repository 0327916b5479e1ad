"""Errors another process told about: their form on the wire and in files, and back to what they were."""

from __future__ import annotations

from peft_core.api_types import ErrorBody
from peft_core.errors import PeftDaemonError


def body_of(error: PeftDaemonError) -> ErrorBody:
    """The form in which an error travels."""
    return ErrorBody(code=error.code, message=error.line, what=error.what, why=error.why, fix=error.fix)


def error_of(body: ErrorBody) -> PeftDaemonError:
    """The error again, of the kind its code names; a code of a later version becomes a plain PeftDaemonError."""
    kind = next((kind for kind in _kinds() if kind.code == body.code), PeftDaemonError)
    return kind(body.what or body.message, why=body.why, fix=body.fix)


def error_of_status(status: int) -> PeftDaemonError:
    """The error an HTTP status stands for, when nothing else was told."""
    kind = next((kind for kind in _kinds() if kind.status == status), PeftDaemonError)
    return kind(f"the daemon answered with HTTP status {status}")


def _kinds() -> list[type[PeftDaemonError]]:
    return [kind for kind in PeftDaemonError.__subclasses__() if "code" in vars(kind)]
