"""``textDocument/inlineCompletion``: ghost text at the cursor.

The answer is empty, never an error, when there is nothing to show: no daemon yet, a newer request, an edit meanwhile.
A cancelled request is answered with RequestCancelled and stops the model. What is shown before it is whole is followed
up (``following``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec
from lsprotocol import types

from peft_core.api_types import CompleteResponse
from peft_lsp import names
from peft_lsp.documents import DocumentSnapshot
from peft_lsp.feedback import SuggestionContext
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.requests import is_hopeless, pause_over, request_at, why_off, word_follows
from peft_lsp.settings import EditorSettings

NOTHING = types.InlineCompletionList(items=[])


def register(server: PeftLanguageServer) -> None:
    """Offer inline completion (without options pygls would not announce it)."""
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(inline_completion)


async def inline_completion(ls: PeftLanguageServer, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """At most one item, whose range covers what the text replaces."""
    place = _place(ls, params)
    if place is None:
        return NOTHING
    snapshot = place.snapshot
    settings = await ls.settings.of(snapshot.uri)
    automatic = params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic
    why = why_off(snapshot.uri, snapshot.language, settings)
    if why is not None and not automatic:
        ls.inform_once(why)
    if why is not None or (automatic and word_follows(snapshot)):
        return NOTHING
    began = time.monotonic()
    request = msgspec.structs.replace(
        request_at(ls, snapshot, settings, purpose="fill"),
        prefix=snapshot.prefix + place.chosen[len(place.typed) :],
        # With a pause of its own the editor needs none of the daemon's.
        automatic=automatic and settings.delay_ms is None,
        show_after_ms=settings.show_after_ms or None,
    )
    if (whole := ls.following.take(snapshot, request)) is not None:
        return _shown(ls, place, whole, settings, began)
    if not await pause_over(ls, snapshot, settings.delay_ms or 0 if automatic else 0, purpose="fill"):
        return NOTHING
    began = time.monotonic()
    ls.warming.asked(snapshot)
    response = await ls.daemon.complete(request)
    if response is None or not ls.documents.is_current(snapshot):
        return NOTHING
    if response.more:
        ls.following.follow(snapshot, request, response)
    return _shown(ls, place, response, settings, began) if response.text else NOTHING


def _shown(
    ls: PeftLanguageServer, place: _Place, response: CompleteResponse, settings: EditorSettings, began: float
) -> types.InlineCompletionList:
    snapshot, typed = place.snapshot, place.typed
    span = types.Range(snapshot.position(snapshot.offset - len(typed)), snapshot.after(response.replace_after))
    text = place.chosen + snapshot.with_line_ends(response.text)
    offer = response.id
    if settings.feedback not in ("off", False):
        latency_ms = 1000 * (time.monotonic() - began)
        offer = ls.feedback.show(SuggestionContext(snapshot, typed, text, response, latency_ms, settings.feedback))
    command = types.Command("accepted", names.ACCEPTED, arguments=[offer])
    return types.InlineCompletionList(items=[types.InlineCompletionItem(text, range=span, command=command)])


@dataclass(frozen=True)
class _Place:
    """Where the text goes.

    While the list is open the editor shows the text after the list's choice, so the choice is taken as typed.
    """

    snapshot: DocumentSnapshot
    typed: str
    """What is typed of the list's choice ..."""
    chosen: str
    """... and that choice; both are empty where no list is open."""


def _place(ls: PeftLanguageServer, params: types.InlineCompletionParams) -> _Place | None:
    """Where the text goes; None where nothing can be shown."""
    snapshot = ls.documents.snapshot(params.text_document.uri, params.position)
    if snapshot is None or is_hopeless(snapshot):
        return None
    selected = params.context.selected_completion_info
    if selected is None:
        return _Place(snapshot, "", "")
    typed = snapshot.before_cursor(selected.range)
    if typed is None or not selected.text.startswith(typed):
        return None
    return _Place(snapshot, typed, selected.text)
