"""``initialize``: the answer, made from the request's parameters alone.

Uses the standard library only: the answer goes out before the language server library is loaded (see ``transport``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_core import __version__
from peft_core.code.positions import Encoding, negotiate
from peft_lsp import ACTION_KINDS, COMMANDS, COMPLETION_TRIGGERS, SERVER_NAME

NOTEBOOKS: Mapping[str, Any] = {"notebookSelector": [{"notebook": "*"}], "save": True}
"""Notebooks of every kind are followed, with all their cells."""
INCREMENTAL = 2
"""``TextDocumentSyncKind``: the editor sends its edits, not the whole text."""


def wants_completion_list(params: Mapping[str, Any]) -> bool:
    """Return whether to offer the completion list: on request, or if inline completions cannot be shown."""
    options = params.get("initializationOptions")
    wish = options.get("completion") if isinstance(options, dict) else None
    if wish in ("always", "never"):
        return bool(wish == "always")
    return not shows_ghost_text(params)


def shows_ghost_text(params: Mapping[str, Any]) -> bool:
    """Return whether the editor can show inline completions."""
    return member(params, "capabilities", "textDocument", "inlineCompletion") is not None


def shows_questions(params: Mapping[str, Any]) -> bool:
    """Return whether the editor shows messages with buttons."""
    return member(params, "capabilities", "window", "showMessage") is not None


def takes_proposals(params: Mapping[str, Any]) -> bool:
    """Return whether the editor shows proposals, so that code actions may return some."""
    return member(params, "initializationOptions", "proposals") is True


def workspace_folders(params: Mapping[str, Any]) -> list[str]:
    """Return the URIs of the workspace's folders; older clients name one root instead."""
    several = params.get("workspaceFolders")
    found = [member(folder, "uri") for folder in several] if isinstance(several, list) else [params.get("rootUri")]
    return [uri for uri in found if isinstance(uri, str)]


def position_encoding(params: Mapping[str, Any]) -> Encoding:
    """Choose the unit in which this client counts columns."""
    return negotiate(member(params, "capabilities", "general", "positionEncodings"))


def result(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``InitializeResult`` for these parameters, as JSON."""
    capabilities: dict[str, Any] = {
        "positionEncoding": position_encoding(params).value,
        "textDocumentSync": {"openClose": True, "change": INCREMENTAL, "save": True},
        "inlineCompletionProvider": {},
        "codeActionProvider": {"codeActionKinds": list(ACTION_KINDS)},
        "executeCommandProvider": {"commands": list(COMMANDS)},
        "workspace": {"workspaceFolders": {"supported": True, "changeNotifications": True}},
    }
    if member(params, "capabilities", "notebookDocument") is not None:
        capabilities["notebookDocumentSync"] = NOTEBOOKS
    if wants_completion_list(params):
        capabilities["completionProvider"] = {"triggerCharacters": list(COMPLETION_TRIGGERS)}
    return {"capabilities": capabilities, "serverInfo": {"name": SERVER_NAME, "version": __version__}}


def member(value: Any, *keys: str) -> Any:
    """Return the value below a path of keys; None if it is not there."""
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
