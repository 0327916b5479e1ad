"""``textDocument/inlineCompletion``: ghost text at the cursor.

The answer is empty, never an error, when there is nothing to show: no daemon yet, a newer request, an edit meanwhile.
A cancelled request is answered with RequestCancelled and stops the model.
"""

from __future__ import annotations

import time

import msgspec
from lsprotocol import types

from peft_lsp import names
from peft_lsp.documents import Snapshot
from peft_lsp.feedback import Suggestion
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.requests import is_hopeless, pause_over, request_at, word_follows

NOTHING = types.InlineCompletionList(items=[])


def register(server: PeftLanguageServer) -> None:
    """Offer inline completion (without options pygls would not announce it)."""
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(inline_completion)


async def inline_completion(ls: PeftLanguageServer, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """At most one item, whose range covers what the text replaces."""
    asked = _place(ls, params)
    if asked is None:
        return NOTHING
    snapshot, typed, chosen = asked
    settings = await ls.settings.of(snapshot.uri)
    automatic = params.context.trigger_kind is types.InlineCompletionTriggerKind.Automatic
    if not settings.serves(snapshot.language) or (automatic and word_follows(snapshot)):
        return NOTHING
    if not await pause_over(ls, snapshot, settings.delay_ms / 1000 if automatic else 0, purpose="fill"):
        return NOTHING
    request = request_at(ls, snapshot, settings, purpose="fill")
    request = msgspec.structs.replace(request, prefix=snapshot.prefix + chosen[len(typed) :])
    began = time.monotonic()
    response = await ls.daemon.complete(request)
    if response is None or not response.text or not ls.documents.is_current(snapshot):
        return NOTHING
    span = types.Range(snapshot.position(snapshot.offset - len(typed)), snapshot.after(response.replace_after))
    text = chosen + snapshot.with_line_ends(response.text)
    offer = response.id
    if settings.feedback:
        offer = ls.feedback.show(Suggestion(snapshot, typed, text, response, 1000 * (time.monotonic() - began)))
    command = types.Command("accepted", names.ACCEPTED, arguments=[offer])
    return types.InlineCompletionList(items=[types.InlineCompletionItem(text, range=span, command=command)])


def _place(ls: PeftLanguageServer, params: types.InlineCompletionParams) -> tuple[Snapshot, str, str] | None:
    """Where the text goes, what is typed of the list's choice, and that choice; None where nothing can be shown.

    While the list is open the editor shows the text after the list's choice, so the choice is taken as typed.
    """
    snapshot = ls.documents.snapshot(params.text_document.uri, params.position)
    if snapshot is None or is_hopeless(snapshot):
        return None
    selected = params.context.selected_completion_info
    if selected is None:
        return snapshot, "", ""
    typed = snapshot.before_cursor(selected.range)
    if typed is None or not selected.text.startswith(typed):
        return None
    return snapshot, typed, selected.text
