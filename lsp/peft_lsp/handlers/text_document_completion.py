"""``textDocument/completion``: the model's text as an item of the completion list, for editors without ghost text.

The item replaces the word being typed, so that an editor that filters by that word keeps it. It is sorted last, below
the suggestions of the language's own server.
"""

from __future__ import annotations

import msgspec
from lsprotocol import types

from peft_core.code.positions import content, split_lines
from peft_lsp.documents import DocumentSnapshot
from peft_lsp.session import Session

NOTHING = types.CompletionList(is_incomplete=True, items=[])
MAX_LABEL_CHARS = 80


async def completion(session: Session, params: types.CompletionParams) -> types.CompletionList:
    """Return at most one item; the list is marked incomplete, as the model answers again after each key."""
    snapshot = session.documents.snapshot(params.text_document.uri, params.position)
    if snapshot is None:
        return NOTHING
    settings = await session.settings.of(snapshot.uri)
    if settings.completion == "never" or not session.may_suggest(snapshot, settings, automatic=True):
        return NOTHING
    # The protocol does not say whether a key or the user asked, so every request waits.
    if not await session.wait_for_pause(snapshot, settings.delay_ms or 0, purpose="list"):
        return NOTHING
    request = session.request_at(snapshot, settings, purpose="list")
    session.prefetch.completion_requested(snapshot)
    # Wait for the complete answer: an item of a list cannot grow.
    request = msgspec.structs.replace(request, automatic=settings.delay_ms is None)
    response = await session.complete(snapshot, request)
    if response is None or not response.text.strip():
        return NOTHING
    return types.CompletionList(is_incomplete=True, items=[_item(snapshot, response.text, response.replace_after)])


def _item(snapshot: DocumentSnapshot, text: str, replace_after: int) -> types.CompletionItem:
    word = _word_before(snapshot.text[: snapshot.offset])
    whole = word + text
    # The range of a completion has to stay on the cursor's line.
    replaced = min(replace_after, len(snapshot.text) - snapshot.offset)
    span = types.Range(snapshot.position(snapshot.offset - len(word)), snapshot.after(replaced))
    label = content(split_lines(whole.strip())[0])
    return types.CompletionItem(
        label=label if len(label) <= MAX_LABEL_CHARS else label[: MAX_LABEL_CHARS - 1] + "…",
        kind=types.CompletionItemKind.Text,
        detail="peft-daemon",
        documentation=whole,
        filter_text=word or label,
        sort_text="~peft-daemon",
        insert_text_format=types.InsertTextFormat.PlainText,
        insert_text_mode=types.InsertTextMode.AsIs,
        text_edit=types.TextEdit(span, snapshot.with_line_ends(whole)),
    )


def _word_before(text: str) -> str:
    start = len(text)
    while start and (text[start - 1].isalnum() or text[start - 1] == "_"):
        start -= 1
    return text[start:]
