"""The real process on standard input and output: what any client may do to it, and what it must answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from support.editor import COMMAND, Editor, editor

OFF = {"enabled": False}
URI = "file:///project/demo.py"


@asynccontextmanager
async def process(
    *command: str, environ: dict[str, str], stderr: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    one = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=stderr, env={**os.environ, **environ}
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
            await one.wait()


async def send(server: asyncio.subprocess.Process, **message: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    assert server.stdin is not None
    server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await server.stdin.drain()


async def answer(server: asyncio.subprocess.Process, identity: int) -> dict[str, Any]:
    assert server.stdout is not None
    while True:
        header = await server.stdout.readuntil(b"\r\n\r\n")
        length = int(header.split(b":")[1].split(b"\r\n")[0])
        message: dict[str, Any] = json.loads(await server.stdout.readexactly(length))
        if message.get("id") == identity:
            return message


def hello(options: Any = None) -> dict[str, Any]:
    return {
        "processId": None,
        "rootUri": None,
        "capabilities": {"textDocument": {"inlineCompletion": {}}},
        "initializationOptions": options or OFF,
    }


async def test_initialize_is_answered_once(bare: dict[str, str]) -> None:
    async with process(*COMMAND, environ=bare) as server:
        await send(server, id=1, method="initialize", params=hello())
        await send(server, id=2, method="shutdown")
        await send(server, method="exit")
        assert server.stdout is not None
        output = await server.stdout.read()
    assert [output.count(b'"id": %d' % identity) for identity in (1, 2)] == [1, 1]


async def test_a_proper_shutdown_ends_with_0_and_any_other_end_with_1(bare: dict[str, str]) -> None:
    async with process(*COMMAND, environ=bare) as server:
        await send(server, id=1, method="initialize", params=hello())
        await answer(server, 1)
        await send(server, id=2, method="shutdown")
        await answer(server, 2)
        await send(server, method="exit")
        assert await server.wait() == 0
    async with process(*COMMAND, environ=bare) as server:
        await send(server, id=1, method="initialize", params=hello())
        await answer(server, 1)
        await send(server, method="exit")
        assert await server.wait() == 1


async def test_the_server_ends_when_the_editor_is_gone(bare: dict[str, str]) -> None:
    async with process(*COMMAND, environ=bare) as server:
        await send(server, id=1, method="initialize", params=hello())
        await answer(server, 1)
        assert server.stdin is not None
        server.stdin.close()
        assert await server.wait() == 1


async def test_the_server_ends_with_its_editor_though_another_process_holds_its_stdin(bare: dict[str, str]) -> None:
    async with process("/bin/sh", "-c", "read line", environ={}) as editor, process(*COMMAND, environ=bare) as server:
        await send(server, id=1, method="initialize", params={**hello(), "processId": editor.pid})
        await send(server, id=2, method="textDocument/nonsense", params={})
        await answer(server, 2)
        editor.kill()
        assert await asyncio.wait_for(server.wait(), 60) == 1


async def test_unreadable_parameters_and_unknown_methods_are_answered_and_survived(bare: dict[str, str]) -> None:
    async with process(*COMMAND, environ=bare, stderr=PIPE) as server:
        await send(server, id=1, method="initialize", params=hello())
        await send(server, method="textDocument/didOpen", params=[])
        await send(server, id=2, method="textDocument/inlineCompletion", params={"position": 3})
        await send(server, id=3, method="textDocument/nonsense", params={})
        await send(server, id=4, method="workspace/executeCommand", params={"command": "nonsense"})
        await send(server, id=5, method="workspace/executeCommand", params={"command": "peft-daemon.generate"})
        codes = [(await answer(server, identity))["error"]["code"] for identity in (2, 3, 4, 5)]
        assert codes == [-32602, -32601, -32602, -32602]
        await send(server, id=6, method="shutdown")
        assert "error" not in await answer(server, 6)
        await send(server, method="exit")
        assert server.stderr is not None
        told = await server.stderr.read()
        assert b"Unable to" in told
        assert b"Traceback" not in told
        assert b"Method Not Found" not in told  # an editor shows each error, and may ask for it in each document


@pytest.mark.parametrize("after_initialize", [False, True])
async def test_a_header_that_cannot_be_read_ends_the_session_with_one_line(
    bare: dict[str, str], after_initialize: bool
) -> None:
    async with process(*COMMAND, environ=bare, stderr=PIPE) as server:
        assert server.stdin is not None
        assert server.stderr is not None
        if after_initialize:
            await send(server, id=1, method="initialize", params=hello())
            await answer(server, 1)
        server.stdin.write(b"Content-Length: abc\r\n\r\n{}")
        await server.stdin.drain()
        assert await server.wait() == 1
        (line,) = (await server.stderr.read()).splitlines()
        assert b"Content-Length is b'abc'" in line


async def test_a_body_that_cannot_be_read_is_answered_and_survived(bare: dict[str, str]) -> None:
    async with process(*COMMAND, environ=bare, stderr=PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        nested = b'{"jsonrpc": "2.0", "id": 9, "params": ' + b"[" * 10_000
        for identity in (1, 2):
            server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(nested) + nested)
            await send(server, id=identity, method="initialize" if identity == 1 else "shutdown", params=hello())
            await answer(server, identity)
        await send(server, method="exit")
        assert await server.wait() == 0
        assert b"Traceback" not in await server.stderr.read()


async def test_a_log_can_be_asked_for_and_stays_out_of_the_protocol(bare: dict[str, str]) -> None:
    async with process(*COMMAND, "--stdio", "--log-level", "debug", environ=bare, stderr=PIPE) as server:
        await send(server, id=1, method="initialize", params=hello())
        await answer(server, 1)
        await send(server, id=2, method="shutdown")
        await answer(server, 2)
        await send(server, method="exit")
        assert server.stderr is not None
        assert b"DEBUG" in await server.stderr.read()


async def test_what_else_is_printed_does_not_reach_the_editor(bare: dict[str, str]) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from peft_lsp import transport\n"
        "real = transport.shake_hands\n"
        "def noisy(*streams):\n"
        "    print('from Python', flush=True)\n"
        "    os.write(1, b'from C')\n"
        "    subprocess.run([sys.executable, '-c', 'print(1)'], check=True)\n"
        "    return real(*streams)\n"
        "transport.shake_hands = noisy\n"
        "sys.exit(transport.serve_stdio())\n"
    )
    async with process(sys.executable, "-c", program, environ=bare) as server:
        await send(server, id=1, method="initialize", params=hello())
        assert server.stdout is not None
        assert (await server.stdout.readuntil(b"\r\n")).startswith(b"Content-Length")


async def test_settings_come_from_the_client_and_a_bad_one_is_reported_once(bare: dict[str, str]) -> None:
    async with editor(bare, settings={"enabled": False, "maxTokens": "many"}) as one:
        await one.status(lambda status: status["state"] == "off")
        one.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(None))
        one.client.set_configuration({"enabled": False, "maxTokens": -1}, section="peft-daemon")
        told = one.client.wait_for_notification(types.WINDOW_SHOW_MESSAGE)
        one.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(None))
        await told
        first, second = (each.message for each in one.client.messages)
        assert "'many'" in first
        assert "-1" in second
        assert [each.method for each in one.registrations] == [types.WORKSPACE_DID_CHANGE_CONFIGURATION]


async def test_a_client_that_cannot_be_asked_pushes_its_settings(bare: dict[str, str]) -> None:
    capabilities = types.ClientCapabilities()
    async with editor(bare, capabilities=capabilities, options=OFF) as one:
        await one.status(lambda status: status["state"] == "off")
        told = one.client.wait_for_notification(types.WINDOW_SHOW_MESSAGE)
        one.client.workspace_did_change_configuration(
            types.DidChangeConfigurationParams({"peft-daemon": {"enabled": False, "adapter": 3}})
        )
        assert "'adapter' is 3" in (await told).message


async def test_code_actions_are_offered_on_prose_and_only_if_their_kind_is_wanted(bare: dict[str, str]) -> None:
    async with editor(bare, options=OFF) as one:
        one.open(URI, "# add two numbers\nx = 1\n")

        async def offered(line: int, only: list[str] | None = None, *, lines: int = 0) -> list[str]:
            place = types.Range(types.Position(line, 0), types.Position(line + lines, 0))
            context = types.CodeActionContext([], only=only)
            answer = await one.client.text_document_code_action_async(
                types.CodeActionParams(types.TextDocumentIdentifier(URI), place, context)
            )
            return [each.title for each in answer or ()]

        assert await offered(0) == ["Generate code from this comment"]
        assert await offered(0, lines=1) == ["Generate code from this comment"]
        assert await offered(0, lines=2) == []
        assert await offered(1) == []
        assert await offered(0, ["refactor"]) == ["Generate code from this comment"]
        assert await offered(0, ["refactor.rewrite"]) == ["Generate code from this comment"]
        assert await offered(0, ["quickfix", "refactor.re"]) == []


async def test_without_a_model_completions_are_empty_and_the_user_is_told_once_what_to_do(bare: dict[str, str]) -> None:
    async with editor(bare) as one:
        one.open(URI, "# add two numbers\nx = ")
        assert await one.inline(URI, 1, 4) == []
        status = await one.status(lambda each: each["state"] == "error")
        assert "peft-daemon" in status["message"]
        assert [await one.inline(URI, 1, 4) for _ in range(3)] == [[], [], []]
        with pytest.raises(JsonRpcException, match="peft-daemon") as failure:
            await one.command("peft-daemon.generate", {"uri": URI, "line": 0})
        assert failure.value.code == types.LSPErrorCodes.RequestFailed
        assert len(one.client.messages) == 1


async def test_nothing_is_asked_of_the_daemon_when_completion_is_off(bare: dict[str, str]) -> None:
    one = Editor()
    try:
        await one.start(bare, options=OFF, settings=OFF)
        await one.status(lambda status: status["state"] == "off")
        one.open(URI, "x = ")
        assert await one.inline(URI, 0, 4) == []
        assert await one.leave() == 0
        assert {status["state"] for status in one.statuses} == {"off"}
    finally:
        await one.close()
