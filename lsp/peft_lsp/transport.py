"""Standard input and output of ``peft-daemon lsp``: framed messages, the handshake, the process.

``initialize`` is answered before the language server library is loaded, which takes about half a second: some editors
wait for this answer before they show anything. The library then gets an ``initialize`` of its own and its answer is
dropped; a test checks that both answers are equal. Only the standard library is imported here.

After a header that cannot be read the next message cannot be found, so the session ends with one line on standard
error. A body that is not a JSON-RPC message is answered with an error, and the session continues.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from peft_core.confinement import forbid_core_dumps
from peft_lsp.handlers.initialize import member, result

MAX_BODY_BYTES = 1 << 28
"""Largest message; the largest ones contain the text of a document."""
MAX_HEADER_BYTES = 1 << 13
"""Longest line of a header."""
PARSE_ERROR, INVALID_REQUEST = -32700, -32600
VERSION = "2.0"
NOT_INITIALIZED, INVALID_PARAMS = -32002, -32602
READ_CAPABILITIES = (
    ("window", "workDoneProgress"),
    ("workspace", "configuration"),
    ("workspace", "didChangeConfiguration", "dynamicRegistration"),
    ("workspace", "workspaceEdit", "documentChanges"),
)
"""Client capabilities that the handlers read later on."""


class MalformedHeader(Exception):
    """A header cannot be read; the text says why."""


class Message(NamedTuple):
    """A message: its bytes and its decoded content."""

    body: bytes
    content: dict[str, Any]


def read_message(stdin: BinaryIO, stdout: BinaryIO) -> Message | None:
    """Read the next message; None at the end of the input.

    A body that is not a message is answered with an error on ``stdout`` and skipped. Raises MalformedHeader.
    """
    while (body := _read_body(stdin)) is not None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, ValueError) else "nested too deeply"
            write_error(stdout, None, PARSE_ERROR, f"the message is not JSON: {why}")
            continue
        request_id = content.get("id") if isinstance(content, dict) else None
        if not isinstance(content, dict) or content.get("jsonrpc") != VERSION or not _is_request_id(request_id):
            known = request_id if _is_request_id(request_id) else None
            write_error(stdout, known, INVALID_REQUEST, "the message is not a JSON-RPC 2.0 object")
            continue
        return Message(body, content)
    return None


def print_header_error(error: MalformedHeader) -> None:
    """Write to standard error why the session ends."""
    sys.stderr.write(f"peft-daemon lsp: the client sent a header that cannot be read: {error}\n")


def write_error(stdout: BinaryIO, request_id: int | str | None, code: int, message: str) -> None:
    """Answer with an error; ``request_id`` is None if the request is not known."""
    write(stdout, {"jsonrpc": VERSION, "id": request_id, "error": {"code": code, "message": message}})


def write(stdout: BinaryIO, message: Mapping[str, Any]) -> None:
    """Send a message."""
    stdout.write(framed(message))
    stdout.flush()


def framed(message: Mapping[str, Any]) -> bytes:
    """Return a message with its header."""
    return _with_header(json.dumps(message).encode())


def _with_header(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


class MessageInput(io.RawIOBase):
    """An input stream of valid messages only, with headers as the library expects them.

    Begins with the message ``first``, goes on with those of ``stdin``, and ends at a header that cannot be read.
    """

    def __init__(self, first: bytes, stdin: BinaryIO, stdout: BinaryIO) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._message = io.BytesIO(first)
        self._ended = False

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line of a header; empty at the end."""
        line = self._message.readline(-1 if size is None else size)
        if line or self._ended:
            return line
        try:
            message = read_message(self._stdin, self._stdout)
        except MalformedHeader as error:
            print_header_error(error)
            message = None
        if message is None:
            self._ended = True
            return b""
        self._message = io.BytesIO(_with_header(message.body))
        return self._message.readline(-1 if size is None else size)

    def read(self, size: int = -1, /) -> bytes:
        """Return ``size`` bytes of the body whose header was read."""
        return self._message.read(size)


def _read_body(stdin: BinaryIO) -> bytes | None:
    """Read the body of the next message; None if the input ends before it is complete."""
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
            raise MalformedHeader(f"{line[:80]!r} is not a header line")
        if name.strip().lower() == b"content-length":
            length = _length(value.strip())
    return None


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > len(str(MAX_BODY_BYTES)) or int(value) > MAX_BODY_BYTES:
        raise MalformedHeader(f"Content-Length is {value[:40]!r}, not a number from 0 to {MAX_BODY_BYTES}")
    return int(value)


def _is_request_id(value: object) -> bool:
    return value is None or (isinstance(value, int | str) and not isinstance(value, bool))


@dataclass(frozen=True)
class Handshake:
    """The client's ``initialize`` request."""

    id: int | str
    params: Mapping[str, Any]

    def initialize_message(self) -> bytes:
        """Return the request for the library, with only those capabilities that this server reads.

        The library would refuse the message for one unknown value, for instance of a later protocol.
        """
        kept: dict[str, Any] = {}
        for path in READ_CAPABILITIES:
            if member(self.params, "capabilities", *path) is True:
                node = kept
                for name in path[:-1]:
                    node = node.setdefault(name, {})
                node[path[-1]] = True
        process = self.params.get("processId")
        params = {"processId": process if isinstance(process, int) else None, "rootUri": None, "capabilities": kept}
        return framed({"jsonrpc": "2.0", "id": self.id, "method": "initialize", "params": params})


def shake_hands(stdin: BinaryIO, stdout: BinaryIO) -> Handshake | None:
    """Answer ``initialize``; return None if the client disconnects before. Raises MalformedHeader.

    As the protocol requires, other requests are answered with ServerNotInitialized, other notifications dropped.
    """
    while message := read_message(stdin, stdout):
        content = message.content
        method, request_id, params = content.get("method"), content.get("id"), content.get("params") or {}
        if method == "exit":
            return None
        if method == "initialize" and request_id is not None:
            if not isinstance(params, dict):
                write_error(stdout, request_id, INVALID_PARAMS, "the parameters are not an object")
                continue
            write(stdout, {"jsonrpc": "2.0", "id": request_id, "result": result(params)})
            return Handshake(request_id, params)
        if request_id is not None and method is not None:
            write_error(stdout, request_id, NOT_INITIALIZED, "the first request must be 'initialize'")
    return None


class FirstAnswerFilter(io.RawIOBase):
    """An output stream that drops the library's answer to ``initialize``, which the client has already."""

    def __init__(self, request_id: int | str, stdout: BinaryIO) -> None:
        self._request_id: int | str | None = request_id
        self._stdout = stdout

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # the library writes bytes only
        """Pass a message on, or drop it; the library writes each message in one piece."""
        if self._request_id is not None:
            message = json.loads(data.partition(b"\r\n\r\n")[2])
            if "method" not in message and message.get("id") == self._request_id:
                self._request_id = None
                return len(data)
        return self._stdout.write(data)

    def flush(self) -> None:
        """Flush the output."""
        self._stdout.flush()


class DelayedEnd(io.RawIOBase):
    """An input stream that calls ``before`` before it reports its end.

    The library stops all work as soon as it reads the end; ``before`` reports the outcome of the last suggestions to
    the daemon.
    """

    def __init__(self, stream: BinaryIO, before: Callable[[], None]) -> None:
        self._stream = stream
        self._before = before

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line; empty at the end."""
        line = self._stream.readline(-1 if size is None else size)
        if not line:
            self._before()
        return line

    def read(self, size: int = -1, /) -> bytes:
        """Return ``size`` bytes of a message's body."""
        return self._stream.read(size)


def serve_stdio(log_level: str = "warning") -> int:
    """Serve one editor until it disconnects; return the exit code (0 after a proper shutdown, else 1)."""
    stdin, stdout = sys.stdin.buffer, _take_stdout()
    try:
        handshake = shake_hands(stdin, stdout)
    except MalformedHeader as error:
        print_header_error(error)
        return 1
    if handshake is None:
        return 1
    forbid_core_dumps()
    # Loading the library creates some hundred thousand objects that stay. Garbage collection among them would take a
    # sixth of the time.
    gc.disable()
    from peft_lsp.server import serve  # noqa: PLC0415

    gc.enable()
    return serve(handshake, stdin, stdout, log_level)


def _take_stdout() -> BinaryIO:
    """Reserve standard output for the protocol: all other writes, of child processes too, go to standard error."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own
