"""Headers and bodies as clients send them, good and bad."""

from __future__ import annotations

import io
import json

import pytest

from peft_lsp.framing import MAX_BODY_BYTES, MAX_HEADER_BYTES, MalformedHeader, ReadableInput, read_message

HELLO = b'{"jsonrpc": "2.0", "method": "hello"}'
LENGTH = b"Content-Length: %d" % len(HELLO)
UNREADABLE = [
    b"Content-Length: abc\r\n\r\n" + HELLO,
    b"Content-Length: -5\r\n\r\n" + HELLO,
    b"Content-Length: \r\n\r\n" + HELLO,
    b"Content-Length: 1e3\r\n\r\n" + HELLO,
    b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
    b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"Content-Type: text\r\n\r\n" + HELLO,
    HELLO + b"\n",
    bytes(range(256)) * 4,
    b"\xff" * (MAX_HEADER_BYTES + 1),
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_header_that_cannot_be_read_ends_the_stream_with_one_line(
    data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MalformedHeader):
        read_message(io.BytesIO(data), io.BytesIO())
    stream = ReadableInput(b"", io.BytesIO(data), io.BytesIO())
    assert (stream.readline(), stream.readline()) == (b"", b"")
    (line,) = capsys.readouterr().err.splitlines()
    assert "header" in line
    assert len(line) < 300
    assert line.isprintable()


@pytest.mark.parametrize(
    "header",
    [
        LENGTH + b"\r\n\r\n",
        b"content-length :" + LENGTH.split(b":")[1] + b"\n\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n" + LENGTH + b"\r\n\r\n",
        b"\r\n\r\n" + LENGTH + b"\r\n\r\n",
    ],
)
def test_what_clients_write_otherwise_is_understood(header: bytes) -> None:
    message = read_message(io.BytesIO(header + HELLO), io.BytesIO())
    assert message is not None
    assert message.content["method"] == "hello"
    stream = ReadableInput(b"", io.BytesIO(header + HELLO), io.BytesIO())
    assert (stream.readline(), stream.readline(), stream.read(len(HELLO))) == (LENGTH + b"\r\n", b"\r\n", HELLO)


@pytest.mark.parametrize("cut", [0, 5, len(LENGTH) + 2, len(LENGTH) + 10])
def test_an_input_that_ends_in_the_middle_has_no_more_messages(cut: int) -> None:
    assert read_message(io.BytesIO((LENGTH + b"\r\n\r\n" + HELLO)[:cut]), io.BytesIO()) is None


@pytest.mark.parametrize(
    ("body", "code", "identity"),
    [
        (b"", -32700, None),
        (b"{", -32700, None),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}', -32700, None),
        (b"[" * 100_000, -32700, None),
        (b'{"jsonrpc": "2.0", "id": 1, "params": ' + b'{"a":' * 100_000, -32700, None),
        (b"[]", -32600, None),
        (b"3", -32600, None),
        (b'{"id": 7, "method": "m"}', -32600, 7),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "m"}', -32600, None),
    ],
)
def test_a_body_that_is_no_message_is_answered_and_left_out(body: bytes, code: int, identity: int | None) -> None:
    out = io.BytesIO()
    data = b"Content-Length: %d\r\n\r\n" % len(body) + body + LENGTH + b"\r\n\r\n" + HELLO
    message = read_message(io.BytesIO(data), out)
    assert message is not None
    assert message.body == HELLO
    answer = json.loads(out.getvalue().partition(b"\r\n\r\n")[2])
    assert (answer["id"], answer["error"]["code"]) == (identity, code)
