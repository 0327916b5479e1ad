"""``textDocument/copilotInlineEdit``: the next edit, wherever in the document it is.

Editors have no method of the protocol for it yet; this one is spoken by plugins for Neovim (sidekick.nvim, copilot-lsp)
and by our own extensions. The parameters are a document with its version and a position. The answer is a list of at
most one edit: a range, its new text, the version it is for, and a command to run when the user has accepted it.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from lsprotocol import types

from peft_lsp import ACCEPTED_COMMAND
from peft_lsp.next_edits import pause_before
from peft_lsp.session import Session

NO_EDITS: dict[str, Any] = {"edits": []}
BY_HAND = 1
"""``triggerKind`` of a request that the user made; others, and those without one, are automatic."""

log = logging.getLogger(__name__)


class InlineEditParams(msgspec.Struct, frozen=True):
    """Parameters of the request."""

    uri: str
    line: int
    character: int
    version: int | None = None
    trigger: int | None = None


async def inline_edit(session: Session, params: Any) -> dict[str, Any]:
    """Return the next edit as JSON, of a document that has not changed since; no error where there is none."""
    asked = _read(params)
    session.next_edits.shown_apart = True
    document = session.documents.get(asked.uri) if asked is not None else None
    if asked is None or document is None or asked.version not in (None, document.version):
        return NO_EDITS
    position = types.Position(max(asked.line, 0), max(asked.character, 0))
    snapshot = document.snapshot(position, session.documents.encoding)
    settings = await session.settings.of(asked.uri)
    automatic = asked.trigger != BY_HAND
    pause_s = max(pause_before(snapshot), (settings.delay_ms or 0) / 1000) if automatic else 0.0
    found = await session.next_edits.find(snapshot, settings, automatic=automatic, pause_s=pause_s)
    if found is None:
        return NO_EDITS
    suggestion_id = session.next_edits.show(found, settings)
    start, end = found.snapshot.position(found.start[1]), found.snapshot.after(len(found.old))
    edit = {
        "text": found.snapshot.with_line_ends(found.text),
        "textDocument": {"uri": asked.uri, "version": snapshot.version},
        "range": {
            "start": {"line": start.line, "character": start.character},
            "end": {"line": end.line, "character": end.character},
        },
        "command": {"title": "accepted", "command": ACCEPTED_COMMAND, "arguments": [suggestion_id]},
    }
    return {"edits": [edit]}


def take_no_notice(_session: Session, _params: Any) -> None:
    """Take what such clients tell of the focus and of what they show: it is known without them."""


def _read(params: Any) -> InlineEditParams | None:
    try:
        document, position = params.textDocument, params.position
        fields = {
            "uri": document.uri,
            "version": getattr(document, "version", None),
            "line": position.line,
            "character": position.character,
            "trigger": getattr(getattr(params, "context", None), "triggerKind", None),
        }
        return msgspec.convert(fields, InlineEditParams)
    except (AttributeError, msgspec.ValidationError) as error:
        log.warning("the request for a next edit cannot be read: %s", error)
        return None
