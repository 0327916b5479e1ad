"""``workspace/executeCommand``: restart the daemon, choose and list adapters, show the status, take note of an accept.

A failure is answered with RequestFailed and the daemon's own sentence: what happened, why, what to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import msgspec
from lsprotocol import types
from msgspec import Meta
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from peft_core.api_types import CompleteRequest, CompleteResponse, Task, UseAdapterRequest
from peft_core.errors import InvalidInput, PeftDaemonError
from peft_core.privacy.files import why_secret
from peft_lsp import comments, generation, names
from peft_lsp.documents import DocumentSnapshot, OpenDocument
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.positions import Encoding
from peft_lsp.settings import EditorSettings

CommandHandler = Callable[[PeftLanguageServer, types.ExecuteCommandParams], Awaitable[Any]]


def register(server: PeftLanguageServer) -> None:
    """Offer the commands."""
    for name, command in (
        (names.ACCEPTED, accepted),
        (names.RESTART, restart),
        (names.SWITCH_ADAPTER, switch_adapter),
        (names.LIST_ADAPTERS, list_adapters),
        (names.SHOW_STATUS, show_status),
    ):
        server.command(name)(answered(command))


def answered(command: CommandHandler) -> CommandHandler:
    """The command, with its failures as errors the protocol knows."""

    @wraps(command)
    async def run(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> Any:
        try:
            return await command(ls, params)
        except msgspec.ValidationError as error:
            raise JsonRpcInvalidParams(f"{params.command}: {error}") from None
        except PeftDaemonError as error:
            facts = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
            raise JsonRpcException(error.line, types.LSPErrorCodes.RequestFailed, facts) from None

    return run


async def accepted(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> None:
    """The editor inserted a suggestion; argument: the id that came with it."""
    (id_,) = msgspec.convert(params.arguments or [], tuple[str])
    ls.feedback.took(id_)


async def restart(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> None:
    """End the daemon and start a new one; answered when its model is loaded."""
    await ls.daemon.restart()


async def switch_adapter(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> None:
    """Arguments: the adapter's name (``base`` for none), then optionally the task and the folder it is for."""
    given = dict(zip(("name", "task", "repository"), params.arguments or (), strict=False))
    request = msgspec.convert(given, UseAdapterRequest)
    client = await ls.daemon.client()
    await client.use_adapter(request)
    ls.following.close()  # what is kept came from another one


async def list_adapters(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> Any:
    """All adapters, as ``protocol.AdapterSummary``."""
    client = await ls.daemon.client()
    return msgspec.to_builtins(await client.adapters())


async def show_status(ls: PeftLanguageServer, _: types.ExecuteCommandParams) -> Any:
    """What the status bar shows, and ``protocol.DaemonStatus`` as ``daemon``."""
    client = await ls.daemon.client()
    daemon = msgspec.to_builtins(await client.status())
    return {**msgspec.to_builtins(ls.board.status), "daemon": daemon}


# ``peft-daemon.propose``: code for prose, as an edit for the editor to show; nothing is changed.
#
# The prose is a comment or a docstring, whose code goes below it, or any selected sentence, whose code takes its place.
# What a proposal looks like, and whether it is taken, is the editor's matter.

MAX_SENTENCE_CHARS = 2000
"""Characters; a longer selection is no sentence."""
TITLE_WIDTH = 60
PROSE_LANGUAGES = frozenset({"plaintext", "markdown", "restructuredtext", "asciidoc", "org", "text", ""})
"""Documents that hold no code themselves: Python is written there."""

WireNumber = Annotated[int, Meta(ge=0)]


class WirePosition(msgspec.Struct, frozen=True):
    """A position as the protocol has it."""

    line: WireNumber
    character: WireNumber


class WireRange(msgspec.Struct, frozen=True):
    """A range as the protocol has it; empty for a cursor."""

    start: WirePosition
    end: WirePosition

    def range(self) -> types.Range:
        """The protocol library's own value."""
        start, end = (types.Position(place.line, place.character) for place in (self.start, self.end))
        return types.Range(start, end)


class ProposeArguments(msgspec.Struct, frozen=True):
    """Argument of the command: where the prose stands."""

    uri: str
    range: WireRange


@dataclass(frozen=True)
class ProposalRequest:
    """Prose and the request made of it."""

    words: str
    snapshot: DocumentSnapshot
    """The document where the code goes in ..."""
    start: types.Position
    """... and where that which it replaces begins."""
    lead: str
    """What is written before the code."""
    request: CompleteRequest


@dataclass(frozen=True)
class SelectedSentence:
    """A selected sentence: where it begins, as it stands there, and its words on one line."""

    start: tuple[int, int]
    text: str
    words: str


def register_propose(server: PeftLanguageServer) -> None:
    """Offer the command."""
    server.command(names.PROPOSE)(answered(propose))


async def propose(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Argument: ``Target``. The edit, its document's version and a title; None if there is none to propose.

    Raises PeftDaemonError when there is no prose or the daemon cannot answer.
    """
    (target,) = msgspec.convert(params.arguments or [], tuple[ProposeArguments])
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


def _proposal(wish: ProposalRequest, response: CompleteResponse) -> dict[str, Any]:
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


def _wish(
    ls: PeftLanguageServer, document: OpenDocument, settings: EditorSettings, span: types.Range
) -> ProposalRequest:
    prose = comments.find_prose(document.lines, document.language, *lines_of(span))
    if prose is None:
        selection = _selection(document, span, ls.documents.encoding)
        line, offset = selection.start
        head = document.lines[line][:offset]
        prose = comments.find_trailing_comment(head, selection.text, selection.words, document.language, line)
        if prose is None:
            return _in_place(ls, document, settings, selection)
    snapshot = generation.below(ls, document, prose)
    lead = f"\n{prose.indentation}"
    request = generation.request_for(ls, snapshot, settings, snapshot.prefix + lead, purpose="propose")
    return ProposalRequest(" ".join(prose.text.split()), snapshot, snapshot.position(snapshot.offset), lead, request)


def _selection(document: OpenDocument, span: types.Range, encoding: Encoding) -> SelectedSentence:
    start, text = document.selected(span, encoding)
    words = comments.strip_comment_marks(text, document.language)
    if not words:
        raise InvalidInput(
            "nothing here asks for code", fix="Place the cursor on a comment or docstring, or select a sentence"
        )
    if len(words) > MAX_SENTENCE_CHARS:
        raise InvalidInput(
            f"the selection has {len(words)} characters",
            why=f"a sentence has at most {MAX_SENTENCE_CHARS}",
            fix="Select only what says what the code should do",
        )
    return SelectedSentence(start, text, words)


def _in_place(
    ls: PeftLanguageServer, document: OpenDocument, settings: EditorSettings, selection: SelectedSentence
) -> ProposalRequest:
    """The code takes the place of the sentence; the model sees the sentence as a comment above that line."""
    snapshot = document.after(selection.start, selection.text, ls.documents.encoding)
    before = document.around(*selection.start, ls.documents.encoding)
    comment = comments.as_comment(selection.words, document.language)
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
    return ProposalRequest(selection.words, snapshot, before.position(before.offset), "", request)


class GenerateArguments(msgspec.Struct, frozen=True):
    """Argument of the command: a line of the comment or function."""

    uri: str
    line: int


async def generate(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> bool:
    """Generate and insert; argument: ``Target``. Answers whether code was inserted.

    Raises PeftDaemonError when there is no prose at that line or the daemon cannot answer.
    """
    (target,) = msgspec.convert(params.arguments or [], tuple[GenerateArguments])
    document = ls.documents.get(target.uri)
    if document is not None and (why := why_secret(document.uri, document.language)) is not None:
        ls.inform(why)
        return False
    prose = comments.find_prose(document.lines, document.language, target.line, target.line) if document else None
    if document is None or prose is None:
        raise InvalidInput("no comment or docstring to generate code from", fix="Place the cursor on one")
    snapshot = generation.below(ls, document, prose)
    settings = await ls.settings.of(document.uri)
    prefix = f"{snapshot.prefix}\n{prose.indentation}"
    request = generation.request_for(ls, snapshot, settings, prefix, purpose="generate")
    response = await generation.answer(ls, request, params.work_done_token)
    if response is None:
        return False
    code = response.text.rstrip()
    now = ls.documents.get(target.uri)
    if not code:
        ls.warn("the model had no code for this; describe in more detail what is wanted")
    elif now is None or comments.find_prose(now.lines, now.language, prose.first, prose.last) != prose:
        ls.warn("the comment was changed meanwhile; nothing was inserted")
    else:
        return await _insert(ls, snapshot, now.version, f"\n{prose.indentation}{code}")
    return False


async def _insert(ls: PeftLanguageServer, snapshot: DocumentSnapshot, version: int, text: str) -> bool:
    place = snapshot.position(snapshot.offset)
    edits = [types.TextEdit(types.Range(place, place), snapshot.with_line_ends(text))]
    workspace = ls.client_capabilities.workspace
    ability = workspace.workspace_edit if workspace else None
    if ability is not None and ability.document_changes:
        # With its version, so that the editor refuses an edit that no longer fits.
        identity = types.OptionalVersionedTextDocumentIdentifier(snapshot.uri, version)
        edit = types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(identity, edits)])
    else:
        edit = types.WorkspaceEdit(changes={snapshot.uri: edits})
    answer = await ls.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit, label=generation.TITLE))
    if not answer.applied:
        ls.warn(f"the editor did not take the code: {answer.failure_reason or 'it gave no reason'}")
    return answer.applied


def lines_of(span: types.Range) -> tuple[int, int]:
    """The first and last line of a selection; when whole lines are selected its end stands below the last."""
    first, last = span.start.line, span.end.line
    return first, last - 1 if last > first and span.end.character == 0 else last
