"""No editor, however broken, ends the language server: frames, messages, positions and edits of every kind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from fuzz import mutation
from peft_core.code.positions import Encoding, split_lines
from peft_lsp.documents import OpenDocument
from peft_lsp.settings import read_settings
from peft_lsp.transport import MalformedHeader, MessageInput, shake_hands

FRAMES, MESSAGES, EDITS = 3000, 400, 1000
LONG = 60
"""Times as many when there is time."""
URI = "file:///project/demo.py"
HERE = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 4}}
OPENED = {"uri": URI, "languageId": "python", "version": 1, "text": "x = 1\r\ndef f(é):\n    return '😀'\n"}
CHANGE = {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 1, "character": 3}}, "text": "y\r"}
NOTEBOOK, CELL = "file:///project/study.ipynb", "vscode-notebook-cell:/project/study.ipynb#a"
IN_CELL = {"textDocument": {"uri": CELL}, "position": {"line": 0, "character": 4}}
CELLS = [{"uri": CELL, "languageId": "python", "version": 1, "text": "%%sql\nx = (\r\n!ls {\n"}]
ARRAY = {"start": 0, "deleteCount": 1, "cells": [{"kind": 1, "document": CELL}]}
STRUCTURE = {"array": ARRAY, "didOpen": CELLS, "didClose": [{"uri": CELL}]}
SESSION: tuple[tuple[str, Any], ...] = (
    ("textDocument/didOpen", {"textDocument": OPENED}),
    ("textDocument/didChange", {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [CHANGE]}),
    ("textDocument/inlineCompletion", {**HERE, "context": {"triggerKind": 1}}),
    ("textDocument/completion", {**HERE, "context": {"triggerKind": 1}}),
    ("textDocument/codeAction", {**HERE, "range": CHANGE["range"], "context": {"diagnostics": []}}),
    ("workspace/executeCommand", {"command": "peft-daemon.accepted", "arguments": ["1"]}),
    ("workspace/didChangeConfiguration", {"settings": {"peft-daemon": {"enabled": True, "delayMs": 10}}}),
    ("workspace/didChangeWorkspaceFolders", {"event": {"added": [{"uri": URI, "name": "a"}], "removed": []}}),
    ("textDocument/didSave", {"textDocument": {"uri": URI}}),
    ("peft-daemon/cursor", HERE),
    ("textDocument/didClose", {"textDocument": {"uri": URI}}),
    (
        "notebookDocument/didOpen",
        {
            "notebookDocument": {"uri": NOTEBOOK, "notebookType": "jupyter", "version": 1, "cells": ARRAY["cells"]},
            "cellTextDocuments": CELLS,
        },
    ),
    (
        "notebookDocument/didChange",
        {
            "notebookDocument": {"uri": NOTEBOOK, "version": 2},
            "change": {
                "cells": {
                    "structure": STRUCTURE,
                    "data": [{"kind": 2, "document": CELL}],
                    "textContent": [{"document": {"uri": CELL, "version": 2}, "changes": [CHANGE]}],
                }
            },
        },
    ),
    ("textDocument/inlineCompletion", {**IN_CELL, "context": {"triggerKind": 1}}),
    ("peft-daemon/cursor", IN_CELL),
    ("notebookDocument/didSave", {"notebookDocument": {"uri": NOTEBOOK}}),
    (
        "notebookDocument/didClose",
        {"notebookDocument": {"uri": NOTEBOOK}, "cellTextDocuments": [{"uri": CELL}]},
    ),
)


NOTIFICATIONS = {method for method, _ in SESSION if "/did" in method or method == "peft-daemon/cursor"}


def framed(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def message(method: str, params: Any, number: int | None = None) -> bytes:
    identified = {} if number is None else {"id": number}
    return mutation.written({"jsonrpc": "2.0", "method": method, "params": params} | identified)


def contents(output: bytes) -> Iterator[dict[str, Any]]:
    """The messages of an output, which must be whole."""
    while output:
        header, _, rest = output.partition(b"\r\n\r\n")
        length = int(header.split(b"Content-Length:")[1].split(b"\r\n")[0])
        yield json.loads(rest[:length])
        output = rest[length:]


HELLO = message("initialize", {"processId": None, "rootUri": None, "capabilities": {}}, 1)
INPUT = b"".join(framed(each) for each in (HELLO, *(message(*each, number) for number, each in enumerate(SESSION, 2))))


@pytest.mark.parametrize("numbers", [range(FRAMES), pytest.param(range(FRAMES * LONG), marks=pytest.mark.long)])
def test_any_input_is_read_to_its_end_and_answered_in_whole_frames(numbers: range) -> None:
    for number in numbers:
        stdin, stdout = io.BytesIO(mutation.changed_bytes(INPUT, Random(number))), io.BytesIO()
        with contextlib.suppress(MalformedHeader):
            if (handshake := shake_hands(stdin, stdout)) is not None:
                with contextlib.redirect_stderr(io.StringIO()):
                    passed = MessageInput(handshake.initialize_message(), stdin, stdout)
                    while header := passed.readline():
                        length = int(header.partition(b":")[2])
                        assert passed.readline() == b"\r\n"
                        assert json.loads(passed.read(length))["jsonrpc"] == "2.0"
        assert all(each["jsonrpc"] == "2.0" for each in contents(stdout.getvalue()))


@pytest.mark.parametrize("numbers", [range(MESSAGES), pytest.param(range(MESSAGES * LONG), marks=pytest.mark.long)])
@pytest.mark.timeout(3600)
def test_the_server_answers_every_request_and_shows_no_traceback(numbers: range, tmp_path: Path) -> None:
    sent, asked = [framed(HELLO), framed(message("initialized", {}))], []
    for number in numbers:
        draw = Random(number)
        method, params = draw.choice(SESSION)
        changed = mutation.changed_value(params, draw)
        is_request = method not in NOTIFICATIONS and draw.random() < 0.95
        asked += [number + 10] if is_request else []
        sent.append(framed(message(method, changed, number + 10 if is_request else None)))
    sent += [framed(message("shutdown", None, 9)), framed(message("exit", None))]
    environ = {**os.environ, "PEFT_DAEMON_HOME": str(tmp_path), "PEFT_DAEMON_MODELS_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "peft_daemon", "lsp", "--stdio"]
    done = subprocess.run(command, check=False, input=b"".join(sent), capture_output=True, env=environ, timeout=3000)
    assert b"Traceback" not in done.stderr, done.stderr[-3000:].decode()
    assert done.returncode == 0, done.stderr[-2000:].decode()
    answered = [each["id"] for each in contents(done.stdout) if "method" not in each]
    # A number of thousands of digits makes a message unreadable, so that nobody knows its id.
    assert len({1, 9, *asked} - set(answered)) <= answered.count(None)


# Halves of a pair that cannot join: two edits with one half each would make a letter that the oracle does not know.
text = st.text(st.sampled_from("ab \t\r\n\u2028\x0c\0é😀\ude00\udfff"), max_size=40)
coordinate = st.integers(0, 12) | st.sampled_from((10**3, 2**31 - 1))
position = st.builds(types.Position, coordinate, coordinate)
change = st.builds(types.TextDocumentContentChangeWholeDocument, text) | st.builds(
    types.TextDocumentContentChangePartial, st.builds(types.Range, position, position), text
)


def offset_of(whole: str, place: types.Position, encoding: Encoding) -> int:
    """The offset of a position, by counting from the first character of its line."""
    lines = split_lines(whole)
    if place.line >= len(lines):
        return len(whole)
    line = lines[place.line].rstrip("\r\n") if lines[place.line].endswith(("\r", "\n")) else lines[place.line]
    # A line ends once; what stands before its end may be a form feed, never a line's end.
    column = 0
    for characters, each in enumerate(line):
        column += (
            len(each.encode(encoding + ("-le" if encoding is not Encoding.UTF8 else ""), "surrogatepass"))
            // ({Encoding.UTF8: 1, Encoding.UTF16: 2, Encoding.UTF32: 4}[encoding])
        )
        if column > place.character:
            return sum(map(len, lines[: place.line])) + characters
    return sum(map(len, lines[: place.line])) + len(line)


def edited(begin: str, changes: list[Any], encoding: Encoding) -> None:
    document, whole = OpenDocument(URI, "python", 1, begin), begin
    for each in changes:
        document.change([each], 2, encoding)
        if isinstance(each, types.TextDocumentContentChangePartial):
            start = offset_of(whole, each.range.start, encoding)
            end = max(start, offset_of(whole, each.range.end, encoding))
            whole = whole[:start] + each.text + whole[end:]
        else:
            whole = each.text
        assert document.lines == split_lines(whole)
    for each in changes:
        if isinstance(each, types.TextDocumentContentChangePartial):
            snapshot = document.snapshot(each.range.end, encoding)
            assert len((snapshot.prefix + snapshot.suffix).encode()) >= 0  # halves of pairs are replaced


case = (text, st.lists(change, min_size=1, max_size=5), st.sampled_from(list(Encoding)))


@settings(max_examples=EDITS)
@given(*case)
def test_edits_anywhere_leave_the_text_that_the_editor_has(begin: str, changes: list[Any], encoding: Encoding) -> None:
    edited(begin, changes, encoding)


@pytest.mark.long
@settings(max_examples=EDITS * LONG)
@given(*case)
def test_many_edits_anywhere_leave_the_text_that_the_editor_has(
    begin: str, changes: list[Any], encoding: Encoding
) -> None:
    edited(begin, changes, encoding)


nasty = st.sampled_from(mutation.NASTY_VALUES)


@given(st.recursive(nasty, lambda each: st.lists(each) | st.dictionaries(st.text(), each)))
def test_settings_of_an_editor_are_taken_or_complained_about(raw: Any) -> None:
    read_settings(raw)
    read_settings(dict.fromkeys(("enabled", "delayMs", "disabledLanguages", "automatic", "feedback"), raw))
