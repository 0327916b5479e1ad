"""``peft-daemon.propose``: code for prose, as an edit for the editor to show; nothing is changed.

The prose is a comment or a docstring, whose code goes below it, or any selected sentence, whose code takes its place.
What a proposal looks like, and whether it is taken, is the editor's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from lsprotocol import types
from msgspec import Meta

from peft_core.api_types import CompleteRequest, CompleteResponse, Task
from peft_core.errors import InvalidInput
from peft_core.privacy.files import why_secret
from peft_lsp import comments, generation, names
from peft_lsp.code_action import lines_of
from peft_lsp.commands import answered
from peft_lsp.configuration import Configuration
from peft_lsp.documents import Document, Snapshot
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.positions import Encoding

LONGEST_SENTENCE = 2000
"""Characters; a longer selection is no sentence."""
TITLE_WIDTH = 60
PROSE_LANGUAGES = frozenset({"plaintext", "markdown", "restructuredtext", "asciidoc", "org", "text", ""})
"""Documents that hold no code themselves: Python is written there."""

Count = Annotated[int, Meta(ge=0)]


class Place(msgspec.Struct, frozen=True):
    """A position as the protocol has it."""

    line: Count
    character: Count


class Span(msgspec.Struct, frozen=True):
    """A range as the protocol has it; empty for a cursor."""

    start: Place
    end: Place

    def range(self) -> types.Range:
        """The protocol library's own value."""
        start, end = (types.Position(place.line, place.character) for place in (self.start, self.end))
        return types.Range(start, end)


class Target(msgspec.Struct, frozen=True):
    """Argument of the command: where the prose stands."""

    uri: str
    range: Span


@dataclass(frozen=True)
class Wish:
    """Prose and the request made of it."""

    words: str
    snapshot: Snapshot
    """The document where the code goes in ..."""
    start: types.Position
    """... and where that which it replaces begins."""
    lead: str
    """What is written before the code."""
    request: CompleteRequest


@dataclass(frozen=True)
class Selection:
    """A selected sentence: where it begins, as it stands there, and its words on one line."""

    start: tuple[int, int]
    text: str
    words: str


def register(server: PeftLanguageServer) -> None:
    """Offer the command."""
    server.command(names.PROPOSE)(answered(propose))


async def propose(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Argument: ``Target``. The edit, its document's version and a title; None if there is none to propose.

    Raises PeftDaemonError when there is no prose or the daemon cannot answer.
    """
    (target,) = msgspec.convert(params.arguments or [], tuple[Target])
    document = ls.documents.get(target.uri)
    if document is None:
        raise InvalidInput("that document is not open", fix="Open it in the editor first")
    if (why := why_secret(document.uri, document.language)) is not None:
        ls.inform(why)
        return None
    settings = await ls.settings.of(target.uri)
    wish = _wish(ls, document, settings, target.range.range())
    response = await generation.answer(ls, wish.request, params.work_done_token)
    if response is None:
        return None
    if not response.text.strip():
        ls.warn("the model had no code for this; describe in more detail what is wanted")
        return None
    if not ls.documents.is_current(wish.snapshot):
        ls.warn("the document was edited meanwhile; nothing is proposed")
        return None
    return _proposal(wish, response)


def _proposal(wish: Wish, response: CompleteResponse) -> dict[str, Any]:
    title = wish.words if len(wish.words) <= TITLE_WIDTH else wish.words[: TITLE_WIDTH - 1] + "…"
    end = wish.snapshot.after(response.replace_after)
    return {
        "uri": wish.snapshot.uri,
        "version": wish.snapshot.version,
        "range": {
            "start": {"line": wish.start.line, "character": wish.start.character},
            "end": {"line": end.line, "character": end.character},
        },
        "newText": wish.snapshot.with_line_ends(wish.lead + response.text.rstrip()),
        "title": title,
    }


def _wish(ls: PeftLanguageServer, document: Document, settings: Configuration, span: types.Range) -> Wish:
    prose = comments.find(document.lines, document.language, *lines_of(span))
    if prose is None:
        selection = _selection(document, span, ls.documents.encoding)
        line, offset = selection.start
        head = document.lines[line][:offset]
        prose = comments.trailing(head, selection.text, selection.words, document.language, line)
        if prose is None:
            return _in_place(ls, document, settings, selection)
    snapshot = generation.below(ls, document, prose)
    lead = f"\n{prose.indentation}"
    request = generation.request_for(ls, snapshot, settings, snapshot.prefix + lead, purpose="propose")
    return Wish(" ".join(prose.text.split()), snapshot, snapshot.position(snapshot.offset), lead, request)


def _selection(document: Document, span: types.Range, encoding: Encoding) -> Selection:
    start, text = document.selected(span, encoding)
    words = comments.words(text, document.language)
    if not words:
        raise InvalidInput(
            "nothing here asks for code", fix="Place the cursor on a comment or docstring, or select a sentence"
        )
    if len(words) > LONGEST_SENTENCE:
        raise InvalidInput(
            f"the selection has {len(words)} characters",
            why=f"a sentence has at most {LONGEST_SENTENCE}",
            fix="Select only what says what the code should do",
        )
    return Selection(start, text, words)


def _in_place(ls: PeftLanguageServer, document: Document, settings: Configuration, selection: Selection) -> Wish:
    """The code takes the place of the sentence; the model sees the sentence as a comment above that line."""
    snapshot = document.after(selection.start, selection.text, ls.documents.encoding)
    before = document.around(*selection.start, ls.documents.encoding)
    comment = comments.written(selection.words, document.language)
    if comment is None and document.language in PROSE_LANGUAGES:
        request = generation.request_for(ls, snapshot, settings, "", purpose="propose")
        request = msgspec.structs.replace(
            request, suffix="", intent=selection.words, task=Task.INTENT, language="python"
        )
    else:
        # In a language whose comments are not known, the sentence stands there as it is.
        head = before.text[: before.offset]
        indentation = head[: len(head) - len(head.lstrip())]
        above = before.prefix[: len(before.prefix) - len(head)]
        prefix = f"{above}{indentation}{comment or selection.words}\n{head}"
        request = generation.request_for(ls, snapshot, settings, prefix, purpose="propose")
    return Wish(selection.words, snapshot, before.position(before.offset), "", request)
