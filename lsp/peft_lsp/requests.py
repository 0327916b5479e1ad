"""From a snapshot to the request the daemon gets; what inline completion and the completion list have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_core.api_types import CompleteRequest
from peft_core.privacy.files import prose_language, why_secret
from peft_lsp.documents import DocumentSnapshot
from peft_lsp.settings import EditorSettings

if TYPE_CHECKING:
    from peft_lsp.language_server import PeftLanguageServer

LONGEST_KEY = 4096
"""Longest document key the daemon takes."""


def request_at(
    ls: PeftLanguageServer, snapshot: DocumentSnapshot, settings: EditorSettings, *, purpose: str
) -> CompleteRequest:
    """A request at the snapshot's cursor, with the settings for its document.

    The newest request of a document wins among those with the same ``purpose``.
    """
    return CompleteRequest(
        prefix=snapshot.prefix,
        suffix=snapshot.suffix,
        language=snapshot.language[:200],
        path=snapshot.path,
        workspace=ls.folders.around(snapshot.path),
        document=f"{ls.id}:{purpose}:{snapshot.uri}"[-LONGEST_KEY:],
        adapter=settings.adapter,
        max_tokens=settings.max_tokens,
        time_budget_ms=settings.time_budget_ms,
        prose=True,  # the settings for the document have been looked at: see ``why_off``
    )


def why_off(uri: str, language: str, settings: EditorSettings) -> str | None:
    """Tell the user why a document gets no suggestions; None where it does.

    Everything that shows a document to the model asks this first. The daemon refuses files with secrets as well.
    """
    if (secret := why_secret(uri, language)) is not None:
        return secret
    if not settings.enabled:
        return "suggestions are switched off"
    if settings.disables(language):
        return f"suggestions are off for {prose_language(language) or language}: see the setting 'disabledLanguages'"
    return None


async def pause_over(ls: PeftLanguageServer, snapshot: DocumentSnapshot, milliseconds: int, *, purpose: str) -> bool:
    """Whether the document is still the same after a pause; False at once when a newer request comes meanwhile."""
    return await ls.pauses.over(f"{purpose}:{snapshot.uri}", milliseconds / 1000) and ls.documents.is_current(snapshot)


def is_hopeless(snapshot: DocumentSnapshot) -> bool:
    """Whether there is nothing to complete: an empty document, or one that is no text."""
    return not (snapshot.prefix or snapshot.suffix) or "\0" in snapshot.prefix or "\0" in snapshot.suffix


def word_follows(snapshot: DocumentSnapshot) -> bool:
    """Whether the cursor stands before or inside a word: what is typed there is nearly always an edit of that word."""
    return begins_with_word(snapshot.suffix)


def begins_with_word(text: str) -> bool:
    """Whether a text begins with a character of a word."""
    return text[:1].isalnum() or text[:1] == "_"
