"""The answer sent before the library is loaded is the one the library would have sent; the rest is passed on intact."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from pytest_lsp import client_capabilities

from peft_lsp.handlers.initialize import result, wants_completion_list
from peft_lsp.server import create
from peft_lsp.transport import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    FirstAnswerFilter,
    Handshake,
    MalformedHeader,
    MessageInput,
    read_message,
    shake_hands,
)

EDITORS = ["visual_studio_code", "neovim", "emacs"]


def params_of(editor: str) -> dict[str, Any]:
    from pygls.protocol import default_converter

    capabilities: dict[str, Any] = default_converter().unstructure(client_capabilities(editor))
    return {"processId": None, "rootUri": None, "capabilities": capabilities}


def framed(*messages: dict[str, Any]) -> bytes:
    parts = [json.dumps({"jsonrpc": "2.0", **message}).encode() for message in messages]
    return b"".join(b"Content-Length: %d\r\n\r\n" % len(part) + part for part in parts)


def answers(output: bytes) -> list[dict[str, Any]]:
    found = []
    while output:
        header, _, rest = output.partition(b"\r\n\r\n")
        length = int(header.split(b":")[1].split(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        output = rest[length:]
    return found


def answer_of_the_library(params: dict[str, Any]) -> dict[str, Any]:
    output = io.BytesIO()
    server = create(params)
    server.protocol.set_writer(output)
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    server.protocol.handle_message(server.protocol.structure_message(message))
    (answer,) = answers(output.getvalue())
    found: dict[str, Any] = answer["result"]
    # What is false or empty here may as well be left out (not so a provider's empty options: they announce it).
    sync = found["capabilities"]["textDocumentSync"]
    found["capabilities"]["textDocumentSync"] = {name: value for name, value in sync.items() if value is not False}
    assert found["capabilities"]["workspace"].pop("fileOperations") == {}
    return found


@pytest.mark.parametrize(
    "params",
    [
        *[pytest.param(params_of(editor), id=editor) for editor in EDITORS],
        pytest.param({"processId": None, "rootUri": None, "capabilities": {}}, id="no capabilities"),
        pytest.param(
            {
                "processId": 1,
                "rootUri": None,
                "capabilities": {
                    "general": {"positionEncodings": ["utf-32", "utf-8", "utf-16"]},
                    "textDocument": {"inlineCompletion": {"dynamicRegistration": True}},
                },
                "initializationOptions": {"completion": "always", "enabled": False},
            },
            id="utf-32, both lists",
        ),
    ],
)
def test_the_early_answer_is_the_one_the_library_gives(params: dict[str, Any]) -> None:
    assert result(params) == answer_of_the_library(params)


def test_the_completion_list_is_offered_to_editors_without_inline_completion() -> None:
    inline = {"capabilities": {"textDocument": {"inlineCompletion": {}}}}
    assert "completionProvider" in result({"capabilities": {"textDocument": None}})["capabilities"]
    assert "completionProvider" not in result(inline)["capabilities"]
    assert wants_completion_list({**inline, "initializationOptions": {"completion": "always"}})
    assert not wants_completion_list({"capabilities": {}, "initializationOptions": {"completion": "never"}})


@pytest.mark.parametrize(("abilities", "purpose"), [({"inlineCompletion": {}}, "fill"), ({}, "list")])
def test_the_server_warms_up_for_the_kind_of_completion_the_editor_shows(
    abilities: dict[str, Any], purpose: str
) -> None:
    params = {"capabilities": {"textDocument": abilities}, "initializationOptions": {"completion": "always"}}
    assert create(params).session.purpose == purpose


def test_the_workspaces_folders_are_known_from_the_start() -> None:
    params = {"capabilities": {}, "workspaceFolders": [{"uri": "file:///code", "name": "code"}]}
    assert create(params).session.folders.around("/code/a.py") == "/code"


def test_requests_before_initialize_are_refused_and_notifications_dropped() -> None:
    stdin = io.BytesIO(
        framed(
            {"id": 7, "method": "textDocument/hover", "params": {}},
            {"method": "textDocument/didOpen", "params": {}},
            {"id": "a", "method": "initialize", "params": {"capabilities": {}}},
            {"method": "initialized", "params": {}},
        )
    )
    stdout = io.BytesIO()
    handshake = shake_hands(stdin, stdout)
    assert handshake is not None
    assert handshake.id == "a"
    refusal, answer = answers(stdout.getvalue())
    assert (refusal["id"], refusal["error"]["code"]) == (7, -32002)
    assert (answer["id"], answer["result"]) == ("a", result({"capabilities": {}}))
    assert answers(stdin.read())[0]["method"] == "initialized"


@pytest.mark.parametrize("messages", [[], [{"method": "exit"}]])
def test_a_client_that_leaves_before_initialize_is_let_go(messages: list[dict[str, Any]]) -> None:
    assert shake_hands(io.BytesIO(framed(*messages)), io.BytesIO()) is None


def test_the_library_reads_its_own_message_and_then_what_follows() -> None:
    first, second = framed({"id": 1, "method": "initialize"}), framed({"method": "initialized"})
    stream = MessageInput(first, io.BytesIO(second), io.BytesIO())
    read = b""
    while header := stream.readline():
        read += header + stream.readline()
        read += stream.read(int(header.split(b":")[1]))
    assert read == first + second


def test_a_capability_the_library_does_not_know_does_not_stop_the_server() -> None:
    capabilities = {
        "textDocument": {"completion": {"completionItemKind": {"valueSet": [1, 9999]}}},
        "window": {"workDoneProgress": True},
        "workspace": {"configuration": True, "workspaceEdit": {"documentChanges": "sometimes"}, "symbol": 3},
    }
    handshake = Handshake("x", {"processId": "no number", "capabilities": capabilities})
    server = create(handshake.params)
    server.protocol.set_writer(io.BytesIO())
    (message,) = answers(handshake.initialize_message())
    server.protocol.handle_message(server.protocol.structure_message(message))
    assert server.session.client.shows_progress
    workspace = server.client_capabilities.workspace
    assert workspace is not None
    assert workspace.configuration is True
    assert workspace.workspace_edit is None


def test_only_the_answer_the_client_already_has_is_dropped() -> None:
    out = io.BytesIO()
    stream = FirstAnswerFilter(1, out)  # type: ignore[arg-type]  # io.BytesIO is a BinaryIO to everybody but mypy
    asked, dropped, kept = (
        {"id": 1, "method": "workspace/configuration"},
        {"id": 1, "result": 0},
        {"id": 1, "result": 1},
    )
    for message in (asked, dropped, kept):
        stream.write(framed(message))
    assert [{k: v for k, v in m.items() if k != "jsonrpc"} for m in answers(out.getvalue())] == [asked, kept]


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
    stream = MessageInput(b"", io.BytesIO(data), io.BytesIO())
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
    stream = MessageInput(b"", io.BytesIO(header + HELLO), io.BytesIO())
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
