"""``initialize``: answered from the message alone, before the language server library is loaded.

Loading that library takes about half a second (it builds some 550 classes), and there are editors that wait for this
answer before they draw. What the server can do follows from the client's JSON, so the answer goes out first; the
library then gets a message of its own, and what it answers is dropped. Later messages wait in the pipe meanwhile. Uses
the standard library only. A test holds both answers equal.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from peft_core import __version__
from peft_lsp import names
from peft_lsp.framing import framed, read_message, write, write_error
from peft_lsp.positions import Encoding, negotiate

NOT_INITIALIZED, INVALID_PARAMS = -32002, -32602
CAPABILITIES_READ = (
    ("window", "workDoneProgress"),
    ("workspace", "configuration"),
    ("workspace", "didChangeConfiguration", "dynamicRegistration"),
    ("workspace", "workspaceEdit", "documentChanges"),
)
"""Abilities of a client that make a difference later on."""
INCREMENTAL = 2
"""``TextDocumentSyncKind``: the editor sends its edits, not the whole text."""


@dataclass(frozen=True)
class Handshake:
    """The client's ``initialize`` request."""

    id: int | str
    params: Mapping[str, Any]

    def for_the_library(self) -> bytes:
        """The request as the library gets it: with the capabilities this server reads, and no others.

        One value the library does not know, of a later protocol for instance, and it would refuse the whole message.
        """
        kept: dict[str, Any] = {}
        for path in CAPABILITIES_READ:
            if member(self.params, "capabilities", *path) is True:
                place = kept
                for name in path[:-1]:
                    place = place.setdefault(name, {})
                place[path[-1]] = True
        process = self.params.get("processId")
        params = {"processId": process if isinstance(process, int) else None, "rootUri": None, "capabilities": kept}
        return framed({"jsonrpc": "2.0", "id": self.id, "method": "initialize", "params": params})


def wants_completion_list(params: Mapping[str, Any]) -> bool:
    """Whether to offer the ordinary completion list: when the editor cannot show inline completions, or asks for it."""
    options = params.get("initializationOptions")
    wish = options.get("completion") if isinstance(options, dict) else None
    if wish in ("always", "never"):
        return bool(wish == "always")
    return not shows_ghost_text(params)


def shows_ghost_text(params: Mapping[str, Any]) -> bool:
    """Whether the editor can show inline completions."""
    return member(params, "capabilities", "textDocument", "inlineCompletion") is not None


def workspace_folders(params: Mapping[str, Any]) -> list[str]:
    """The URIs of the workspace's folders; clients from before there were several name a root."""
    several = params.get("workspaceFolders")
    found = [member(folder, "uri") for folder in several] if isinstance(several, list) else [params.get("rootUri")]
    return [uri for uri in found if isinstance(uri, str)]


def position_encoding(params: Mapping[str, Any]) -> Encoding:
    """What this client's columns count."""
    return negotiate(member(params, "capabilities", "general", "positionEncodings"))


def result(params: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to these parameters: ``InitializeResult`` as JSON."""
    capabilities: dict[str, Any] = {
        "positionEncoding": position_encoding(params).value,
        "textDocumentSync": {"openClose": True, "change": INCREMENTAL, "save": True},
        "inlineCompletionProvider": {},
        "codeActionProvider": {"codeActionKinds": [names.GENERATE_KIND]},
        "executeCommandProvider": {"commands": list(names.COMMANDS)},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}},
    }
    if wants_completion_list(params):
        capabilities["completionProvider"] = {"triggerCharacters": list(names.COMPLETION_TRIGGERS)}
    return {"capabilities": capabilities, "serverInfo": {"name": names.SERVER, "version": __version__}}


def shake_hands(stdin: BinaryIO, stdout: BinaryIO) -> Handshake | None:
    """Answer ``initialize``; None if the client leaves before. Raises MalformedHeader.

    Any other request is answered with ServerNotInitialized, any other notification dropped, as the protocol says.
    """
    while message := read_message(stdin, stdout):
        content = message.content
        method, identity, params = content.get("method"), content.get("id"), content.get("params") or {}
        if method == "exit":
            return None
        if method == "initialize" and identity is not None:
            if not isinstance(params, dict):
                write_error(stdout, identity, INVALID_PARAMS, "the parameters are no object")
                continue
            write(stdout, {"jsonrpc": "2.0", "id": identity, "result": result(params)})
            return Handshake(identity, params)
        if identity is not None and method is not None:
            write_error(stdout, identity, NOT_INITIALIZED, "the first request has to be 'initialize'")
    return None


class FirstAnswerFilter(io.RawIOBase):
    """A stream that drops the one answer the client already has; the library writes each message in one piece."""

    def __init__(self, identity: int | str, stdout: BinaryIO) -> None:
        self._identity: int | str | None = identity
        self._stdout = stdout

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # the library writes bytes only
        """Pass a message on, or drop it."""
        if self._identity is not None:
            message = json.loads(data.partition(b"\r\n\r\n")[2])
            if "method" not in message and message.get("id") == self._identity:
                self._identity = None
                return len(data)
        return self._stdout.write(data)

    def flush(self) -> None:
        """Send what was written."""
        self._stdout.flush()


def member(value: Any, *keys: str) -> Any:
    """The value below a path of keys; None if it is not there."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
