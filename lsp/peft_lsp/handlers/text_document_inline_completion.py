"""``textDocument/inlineCompletion``: ghost text at the cursor.

The answer is empty, never an error, when there is nothing to show: no daemon yet, a newer request, an edit meanwhile.
A cancelled request is answered with RequestCancelled and stops the model. If a suggestion is shown before it is
complete, ``prefetch.Continuations`` fetches the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from lsprotocol import types

from peft_core.api_types import CompleteRequest, CompleteResponse
from peft_core.decisions import Decider
from peft_lsp import ACCEPTED_COMMAND
from peft_lsp.documents import DocumentSnapshot
from peft_lsp.feedback import SuggestionContext
from peft_lsp.session import Session
from peft_lsp.settings import EditorSettings

NOTHING = types.InlineCompletionList(items=[])
ALTERNATIVES = (1, 2)
"""The seed of each alternative."""
ALTERNATIVES_MS = 600
"""How long all alternatives may take; they end with what is complete by then."""
TEMPERATURE, TOP_P = 0.8, 0.95


async def inline_completion(session: Session, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """Return at most one item, and up to three where it was asked for by hand; ranges cover the text they replace."""
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
        eagerness=settings.automatic_eagerness if automatic else None,
        silent_in=settings.silent_in if automatic else [],
        show_after_ms=settings.show_after_ms or None,
    )
    if (whole := session.continuations.take(snapshot, request)) is not None:
        return _shown(session, target, [whole], settings, began, automatic=automatic)
    if not await session.wait_for_pause(snapshot, settings.delay_ms or 0 if automatic else 0, purpose="fill"):
        return NOTHING
    began = time.monotonic()
    session.prefetch.completion_requested(snapshot)
    response = await session.complete(snapshot, request)
    if response is None or not response.text:
        return await _next_edit(session, target, settings, began) if response and automatic else NOTHING
    answers = [response]
    if response.more:
        session.continuations.follow(snapshot, request, response)
    elif not automatic:
        answers += await _alternatives(session, request, response)
    return _shown(session, target, answers, settings, began, automatic=automatic)


async def _next_edit(
    session: Session, target: _Target, settings: EditorSettings, began: float
) -> types.InlineCompletionList:
    """Return the next edit where it only changes the rest of the cursor's line, for an editor that asks for no other.

    It is asked for when the model had no completion, so no completion waits for it.
    """
    if session.next_edits.shown_apart or target.chosen:
        return NOTHING
    found = await session.next_edits.find(target.snapshot, settings, automatic=True)
    answer = found.at_cursor(target.snapshot) if found else None
    if answer is None:
        return NOTHING
    return _shown(session, target, [answer], settings, began, automatic=True, next_edit=True)


async def _alternatives(session: Session, request: CompleteRequest, first: CompleteResponse) -> list[CompleteResponse]:
    """Return other answers to a request whose answer was complete in time, which says that the engine is fast."""
    sampled = (
        msgspec.structs.replace(
            request, temperature=TEMPERATURE, top_p=TOP_P, seed=seed, show_after_ms=None, time_budget_ms=ALTERNATIVES_MS
        )
        for seed in ALTERNATIVES
    )
    answers = await asyncio.gather(*map(session.daemon.complete_in_background, sampled))
    others = {each.text.rstrip(): each for each in answers if each is not None and each.text.strip()}
    others.pop(first.text.rstrip(), None)
    return list(others.values())


def _shown(
    session: Session,
    target: _Target,
    answers: Sequence[CompleteResponse],
    settings: EditorSettings,
    began: float,
    *,
    automatic: bool,
    next_edit: bool = False,
) -> types.InlineCompletionList:
    snapshot, typed = target.snapshot, target.typed
    first = target.chosen + snapshot.with_line_ends(answers[0].text)
    document = session.documents.get(snapshot.uri)
    if automatic and document is not None and session.refusals.refuses(document, snapshot, answers[0].text):
        session.continuations.stop(snapshot.uri)
        session.silences.note(snapshot, Decider.DISMISSED, dropped=answers[0])
        return NOTHING
    session.refusals.shown(snapshot.uri, (snapshot.line, snapshot.offset - len(typed)), first)
    items, shown = [], ""
    for response in answers:
        span = types.Range(snapshot.position(snapshot.offset - len(typed)), snapshot.after(response.replace_after))
        text = target.chosen + snapshot.with_line_ends(response.text)
        suggestion_id = response.id
        if settings.feedback not in ("off", False):
            latency_ms = 1000 * (time.monotonic() - began)
            context = SuggestionContext(snapshot, typed, text, response, latency_ms, settings.feedback, next_edit)
            if shown:
                suggestion_id = session.feedback.offer(shown, context)
            else:
                suggestion_id = shown = session.feedback.show(context)
        command = types.Command("accepted", ACCEPTED_COMMAND, arguments=[suggestion_id])
        items.append(types.InlineCompletionItem(text, range=span, command=command))
    return types.InlineCompletionList(items=items)


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
