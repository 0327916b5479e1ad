"""Errors as they travel between processes and lie in files, and back to the errors that they were."""

from __future__ import annotations

import msgspec

from peft_core.errors import PeftDaemonError


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """A ``PeftDaemonError`` as it travels: why a request or a start failed."""

    code: str
    message: str
    type: str = ""
    """The coarse kind that OpenAI's and llama.cpp's clients know: invalid_request_error or server_error."""
    what: str = ""
    why: str = ""
    fix: str = ""


class ErrorResponse(msgspec.Struct, frozen=True):
    """Body of every 4xx and 5xx answer of the native routes."""

    error: ErrorBody


def error_body(error: PeftDaemonError) -> ErrorBody:
    """Return the form in which an error travels."""
    return ErrorBody(code=error.code, message=error.line, what=error.what, why=error.why, fix=error.fix)


def http_error_body(error: PeftDaemonError) -> ErrorBody:
    """Return the form in which an HTTP answer tells an error: with the ``type`` that OpenAI's clients read."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return msgspec.structs.replace(error_body(error), type=kind)


def error_from_body(body: ErrorBody, unknown: type[PeftDaemonError] = PeftDaemonError) -> PeftDaemonError:
    """Return the error again, of the kind its code names; a code of a later version gives an ``unknown``."""
    kind = next((kind for kind in _kinds() if kind.code == body.code), unknown)
    return kind(body.what or body.message, why=body.why, fix=body.fix)


def error_from_response(body: bytes, status: int) -> PeftDaemonError:
    """Return the error that an HTTP answer tells; where its body cannot be read, the one its status names."""
    try:
        return error_from_body(msgspec.json.decode(body, type=ErrorResponse).error)
    except (ValueError, RecursionError):
        kind = next((kind for kind in _kinds() if kind.status == status), PeftDaemonError)
        return kind(f"the daemon answered with HTTP status {status}")


def _kinds() -> list[type[PeftDaemonError]]:
    return [kind for kind in PeftDaemonError.__subclasses__() if "code" in vars(kind)]
