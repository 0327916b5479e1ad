"""``textDocument/inlineCompletion``: ghost text at the cursor.

The answer is empty, never an error, when there is nothing to show: no daemon yet, a newer request, an edit meanwhile.
A cancelled request is answered with RequestCancelled and stops the model. If a suggestion is shown before it is
complete, ``prefetch.Continuations`` fetches the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec
from lsprotocol import types

from peft_core.api_types import CompleteResponse
from peft_core.decisions import Decider
from peft_lsp import ACCEPTED_COMMAND
from peft_lsp.documents import DocumentSnapshot
from peft_lsp.feedback import SuggestionContext
from peft_lsp.session import Session
from peft_lsp.settings import EditorSettings

NOTHING = types.InlineCompletionList(items=[])


async def inline_completion(session: Session, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """Return at most one item; its range covers the text it replaces."""
    target = _target(session, params)
    if target is None:
        return NOTHING
    snapshot = target.snapshot
    settings = await session.settings.of(snapshot.uri)
    automatic = params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic
    if not session.may_suggest(snapshot, settings, automatic=automatic):
        return NOTHING
    began = time.monotonic()
    request = msgspec.structs.replace(
        session.request_at(snapshot, settings, purpose="fill"),
        prefix=snapshot.prefix + target.chosen[len(target.typed) :],
        # If the editor has a delay of its own, the daemon need not debounce.
        automatic=automatic and settings.delay_ms is None,
        eagerness=settings.eagerness if automatic else None,
        show_after_ms=settings.show_after_ms or None,
    )
    if (whole := session.continuations.take(snapshot, request)) is not None:
        return _shown(session, target, whole, settings, began)
    if not await session.wait_for_pause(snapshot, settings.delay_ms or 0 if automatic else 0, purpose="fill"):
        return NOTHING
    began = time.monotonic()
    session.prefetch.completion_requested(snapshot)
    response = await session.complete(snapshot, request)
    if response is None:
        return NOTHING
    if response.more:
        session.continuations.follow(snapshot, request, response)
    return _shown(session, target, response, settings, began) if response.text else NOTHING


def _shown(
    session: Session, target: _Target, response: CompleteResponse, settings: EditorSettings, began: float
) -> types.InlineCompletionList:
    snapshot, typed = target.snapshot, target.typed
    span = types.Range(snapshot.position(snapshot.offset - len(typed)), snapshot.after(response.replace_after))
    text = target.chosen + snapshot.with_line_ends(response.text)
    suggestion_id = response.id
    if settings.feedback not in ("off", False):
        latency_ms = 1000 * (time.monotonic() - began)
        suggestion_id = session.feedback.show(
            SuggestionContext(snapshot, typed, text, response, latency_ms, settings.feedback)
        )
    command = types.Command("accepted", ACCEPTED_COMMAND, arguments=[suggestion_id])
    return types.InlineCompletionList(items=[types.InlineCompletionItem(text, range=span, command=command)])


@dataclass(frozen=True)
class _Target:
    """The position of the suggestion.

    While the completion list is open, the editor shows the suggestion after the selected item, which counts as typed.
    """

    snapshot: DocumentSnapshot
    typed: str
    """The part of the selected item that is typed already; empty if no list is open."""
    chosen: str
    """The text of the selected item; empty if no list is open."""


def _target(session: Session, params: types.InlineCompletionParams) -> _Target | None:
    """Return where the suggestion goes; None if nothing can be shown."""
    snapshot = session.documents.snapshot(params.text_document.uri, params.position)
    if snapshot is None:
        return None
    selected = params.context.selected_completion_info
    if selected is None:
        return _Target(snapshot, "", "")
    typed = snapshot.before_cursor(selected.range)
    if typed is None or not selected.text.startswith(typed):
        session.silences.note(snapshot, Decider.COMPLETION_LIST)
        return None
    return _Target(snapshot, typed, selected.text)
