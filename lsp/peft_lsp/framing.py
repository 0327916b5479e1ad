"""Messages on a stream: a header with the length of the body, an empty line, the body.

A header that cannot be read leaves no way to find the next message, so it ends the session with one line. A body that
is no JSON-RPC message is answered as the protocol says, and the session goes on. Uses the standard library only.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

MAX_BODY_BYTES = 1 << 28
"""Of one message; the largest ones hold the text of a document."""
MAX_HEADER_BYTES = 1 << 13
"""Of one line of a header."""
PARSE_ERROR, INVALID_REQUEST = -32700, -32600
VERSION = "2.0"


class MalformedHeader(Exception):
    """A header that cannot be read; says why."""


class Message(NamedTuple):
    """A message as it came and what it says."""

    body: bytes
    content: dict[str, Any]


def read_message(stdin: BinaryIO, stdout: BinaryIO) -> Message | None:
    """The next message; None at the end of the input.

    Bodies that are none are answered on ``stdout`` and left out. Raises MalformedHeader.
    """
    while (body := _read_body(stdin)) is not None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, ValueError) else "nested too deeply"
            write_error(stdout, None, PARSE_ERROR, f"the message is no JSON: {why}")
            continue
        identity = content.get("id") if isinstance(content, dict) else None
        if not isinstance(content, dict) or content.get("jsonrpc") != VERSION or not _is_identity(identity):
            known = identity if _is_identity(identity) else None
            write_error(stdout, known, INVALID_REQUEST, "the message is no JSON-RPC 2.0 object")
            continue
        return Message(body, content)
    return None


def complain(error: MalformedHeader) -> None:
    """Say on standard error why the session ends."""
    sys.stderr.write(f"peft-daemon lsp: the client sent a header that cannot be read: {error}\n")


def write_error(stdout: BinaryIO, identity: int | str | None, code: int, message: str) -> None:
    """Answer with an error; ``identity`` None: the request is not known."""
    write(stdout, {"jsonrpc": VERSION, "id": identity, "error": {"code": code, "message": message}})


def write(stdout: BinaryIO, message: Mapping[str, Any]) -> None:
    """Send a message."""
    stdout.write(framed(message))
    stdout.flush()


def framed(message: Mapping[str, Any]) -> bytes:
    """A message with its header."""
    return _with_header(json.dumps(message).encode())


def _with_header(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


class ReadableInput(io.RawIOBase):
    """A stream of messages that can all be read, headers as the library expects them; ends where a header cannot be.

    ``first`` comes before those of ``stdin``.
    """

    def __init__(self, first: bytes, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._message = io.BytesIO(first)
        self._ended = False

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line of a header; empty at the end."""
        line = self._message.readline(-1 if size is None else size)
        if line or self._ended:
            return line
        try:
            message = read_message(self._stdin, self._stdout)
        except MalformedHeader as error:
            complain(error)
            message = None
        if message is None:
            self._ended = True
            return b""
        self._message = io.BytesIO(_with_header(message.body))
        return self._message.readline(-1 if size is None else size)

    def read(self, size: int = -1, /) -> bytes:
        """That many bytes of the body whose header was read."""
        return self._message.read(size)


def _read_body(stdin: BinaryIO) -> bytes | None:
    """The body of the next message; None where the input ends before it is whole."""
    length, begun = None, False
    while line := stdin.readline(MAX_HEADER_BYTES + 1):
        if not line.endswith(b"\n"):
            if len(line) <= MAX_HEADER_BYTES:
                return None  # the input ended inside a line
            raise MalformedHeader(f"a line of more than {MAX_HEADER_BYTES} bytes")
        if not line.strip():
            if not begun:
                continue
            if length is None:
                raise MalformedHeader("it has no Content-Length")
            body = stdin.read(length)
            return body if len(body) == length else None
        begun = True
        name, colon, value = line.partition(b":")
        if not colon or not name.strip().replace(b"-", b"").isalnum():
            raise MalformedHeader(f"{line[:80]!r} is no line of a header")
        if name.strip().lower() == b"content-length":
            length = _length(value.strip())
    return None


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > len(str(MAX_BODY_BYTES)) or int(value) > MAX_BODY_BYTES:
        raise MalformedHeader(f"Content-Length is {value[:40]!r}, not a number from 0 to {MAX_BODY_BYTES}")
    return int(value)


def _is_identity(value: object) -> bool:
    return value is None or (isinstance(value, int | str) and not isinstance(value, bool))
