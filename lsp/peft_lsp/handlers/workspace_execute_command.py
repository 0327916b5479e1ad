"""``workspace/executeCommand``: code from prose, adapters, status, restart, and the report of an accepted suggestion.

``generate`` inserts code below a comment or docstring. ``propose`` returns code as an edit for the editor to show:
below a comment or docstring, or in place of a selected sentence. A failure is answered with RequestFailed and the
daemon's message: what happened, why, and what to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams

from peft_core.api_types import CompleteRequest, CompleteResponse, Task, UseAdapterRequest
from peft_core.code.positions import Encoding
from peft_core.decisions import WhyQuery, why_text
from peft_core.decisions import why as explain_last
from peft_core.errors import InvalidInput, PeftDaemonError
from peft_core.privacy.files import why_secret
from peft_lsp import (
    ACCEPTED_COMMAND,
    DOCUMENT_COMMAND,
    EDIT_COMMAND,
    GENERATE_COMMAND,
    LIST_ADAPTERS_COMMAND,
    PROPOSE_COMMAND,
    RESTART_COMMAND,
    STATUS_COMMAND,
    SWITCH_ADAPTER_COMMAND,
    TEST_COMMAND,
    WHY_COMMAND,
    comments,
)
from peft_lsp.documents import DocumentSnapshot, OpenDocument
from peft_lsp.handlers.edit_commands import document_function, edit, proposal_target, selected_lines, test_function
from peft_lsp.proposals import ProposalDraft
from peft_lsp.session import Session
from peft_lsp.settings import EditorSettings

TITLE = "Generating code"
"""Title of the progress bar and of the edit."""
MAX_SENTENCE_CHARS = 2000
"""A longer selection is not taken for a sentence."""
TEXT_LANGUAGES = frozenset({"plaintext", "markdown", "restructuredtext", "asciidoc", "org", "text", ""})
"""Languages of documents without code of their own, for which Python is generated."""

CommandHandler = Callable[[Session, types.ExecuteCommandParams], Awaitable[Any]]


def with_protocol_errors(command: CommandHandler) -> CommandHandler:
    """Wrap a command so that its errors become errors of the protocol."""

    @wraps(command)
    async def run(session: Session, params: types.ExecuteCommandParams) -> Any:
        try:
            return await command(session, params)
        except msgspec.ValidationError as error:
            raise JsonRpcInvalidParams(f"{params.command}: {error}") from None
        except PeftDaemonError as error:
            facts = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix}
            raise JsonRpcException(error.line, types.LSPErrorCodes.RequestFailed, facts) from None

    return run


async def accepted(session: Session, params: types.ExecuteCommandParams) -> None:
    """Note that the editor inserted a suggestion; argument: the id that came with it."""
    (id_,) = msgspec.convert(params.arguments or [], tuple[str])
    session.feedback.accept(id_)
    session.next_edits.feedback.accept(id_)


async def restart(session: Session, _: types.ExecuteCommandParams) -> None:
    """End the daemon and start a new one; answered when its model is loaded."""
    await session.daemon.restart()


async def switch_adapter(session: Session, params: types.ExecuteCommandParams) -> None:
    """Use an adapter.

    Arguments: its name (``base`` for none); optionally the task and the folder to use it for.
    """
    given = dict(zip(("name", "task", "repository"), params.arguments or (), strict=False))
    request = msgspec.convert(given, UseAdapterRequest)
    client = await session.daemon.client()
    await client.use_adapter(request)
    session.continuations.close()  # their answers came from another adapter


async def list_adapters(session: Session, _: types.ExecuteCommandParams) -> Any:
    """Return all adapters, each as ``api_types.AdapterSummary``."""
    client = await session.daemon.client()
    return msgspec.to_builtins(await client.adapters())


async def show_status(session: Session, _: types.ExecuteCommandParams) -> Any:
    """Return the status that the editor shows, with ``status_types.DaemonStatus`` as ``daemon``."""
    client = await session.daemon.client()
    daemon = msgspec.to_builtins(await client.status())
    return {**msgspec.to_builtins(session.board.status), "daemon": daemon}


async def why(session: Session, params: types.ExecuteCommandParams) -> Any:
    """Return why there was a suggestion or none, in words: ``decisions.WhyAnswer`` and all of it as ``text``.

    Argument: optionally the URI of the only document to tell of.
    """
    uri = msgspec.convert([*(params.arguments or ()), None][0], str | None)
    await session.silences.report()
    query = WhyQuery(file=unquote(urlsplit(uri).path) if uri else "")
    answer = await session.daemon.why(query)
    if answer is None:
        answer = explain_last(session.silences.untold, query)
    return {**msgspec.to_builtins(answer), "text": why_text(answer)}


async def _ask(
    session: Session,
    request: CompleteRequest,
    params: types.ExecuteCommandParams,
    on_text: Callable[[str], None] = lambda _: None,
) -> CompleteResponse | None:
    """Ask the model while a progress bar is shown; None if the user stopped it. Raises PeftDaemonError."""
    return await session.client.run_with_progress(
        TITLE, params.work_done_token, lambda bar: session.daemon.generate(request, bar.report, on_text)
    )


class GenerateArguments(msgspec.Struct, frozen=True):
    """Argument of ``generate``: a line of the comment or function."""

    uri: str
    line: int


async def generate(session: Session, params: types.ExecuteCommandParams) -> bool:
    """Generate and insert code; return whether it was inserted. Argument: ``GenerateArguments``.

    Raises PeftDaemonError when there is no prose at that line or the daemon cannot answer.
    """
    (target,) = msgspec.convert(params.arguments or [], tuple[GenerateArguments])
    document = session.documents.get(target.uri)
    if document is not None and (why := why_secret(document.file_uri, document.language)) is not None:
        session.client.inform(why)
        return False
    prose = comments.find_prose(document.lines, document.language, target.line, target.line) if document else None
    if document is None or prose is None:
        raise InvalidInput("no comment or docstring to generate code from", fix="Place the cursor on one")
    snapshot = document.at_end_of_line(prose.last, session.documents.encoding)
    settings = await session.settings.of(document.uri)
    prefix = f"{snapshot.prefix}\n{prose.indentation}"
    request = session.code_request(snapshot, settings, prefix, purpose="generate")
    response = await _ask(session, request, params)
    if response is None:
        return False
    code = response.text.rstrip()
    now = session.documents.get(target.uri)
    if not code:
        session.client.warn("the model had no code for this; describe in more detail what is wanted")
    elif now is None or comments.find_prose(now.lines, now.language, prose.first, prose.last) != prose:
        session.client.warn("the comment was changed meanwhile; nothing was inserted")
    else:
        return await _insert(session, snapshot, now.version, f"\n{prose.indentation}{code}")
    return False


async def _insert(session: Session, snapshot: DocumentSnapshot, version: int, text: str) -> bool:
    cursor = snapshot.position(snapshot.offset)
    edit = types.TextEdit(types.Range(cursor, cursor), snapshot.with_line_ends(text))
    return await session.client.apply_edit(snapshot.uri, version, edit, TITLE)


@dataclass(frozen=True)
class ProposalRequest:
    """Prose and the request made from it."""

    words: str
    snapshot: DocumentSnapshot
    """The document at the position where the code goes in."""
    start: types.Position
    """Beginning of the text that the code replaces."""
    lead: str
    """Text written before the code."""
    request: CompleteRequest


@dataclass(frozen=True)
class SelectedSentence:
    """A selected sentence: where it begins, its text, and its words on one line."""

    start: tuple[int, int]
    text: str
    words: str


async def propose(session: Session, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Return code for prose as a proposal (``proposals``); None if there is none.

    Argument: ``ProposalTarget``. Raises PeftDaemonError when there is no prose or the daemon cannot answer.
    """
    target, document = proposal_target(session, params)
    if document is None:
        return None
    settings = await session.settings.of(target.uri)
    asked = _proposal_request(session, document, settings, target.range.range())
    span = types.Range(asked.start, asked.snapshot.position(asked.snapshot.offset))
    draft = ProposalDraft(
        *(session.client, target, asked.snapshot, span, asked.words),
        layout=lambda code: asked.lead + code.rstrip(),
    )
    response = await _ask(session, asked.request, params, draft.grow)
    if response is None:
        return None
    if not response.text.strip():
        session.client.warn("the model had no code for this; describe in more detail what is wanted")
        return None
    if not session.documents.is_current(asked.snapshot):
        session.client.warn("the document was edited meanwhile; nothing is proposed")
        return None
    return draft.whole(response.text, response)


def _proposal_request(
    session: Session, document: OpenDocument, settings: EditorSettings, span: types.Range
) -> ProposalRequest:
    prose = comments.find_prose(document.lines, document.language, *selected_lines(span))
    if prose is None:
        selection = _selection(document, span, session.documents.encoding)
        line, offset = selection.start
        head = document.lines[line][:offset]
        prose = comments.find_trailing_comment(head, selection.text, selection.words, document.language, line)
        if prose is None:
            return _in_place(session, document, settings, selection)
    snapshot = document.at_end_of_line(prose.last, session.documents.encoding)
    lead = f"\n{prose.indentation}"
    request = session.code_request(snapshot, settings, snapshot.prefix + lead, purpose="propose")
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
    session: Session, document: OpenDocument, settings: EditorSettings, selection: SelectedSentence
) -> ProposalRequest:
    """Ask for code that replaces the sentence; the model sees the sentence as a comment above that line."""
    snapshot = document.after(selection.start, selection.text, session.documents.encoding)
    before = document.around(*selection.start, session.documents.encoding)
    comment = comments.as_comment(selection.words, document.language)
    if comment is None and document.language in TEXT_LANGUAGES:
        request = session.code_request(snapshot, settings, "", purpose="propose")
        request = msgspec.structs.replace(
            request, suffix="", intent=selection.words, task=Task.INTENT, language="python"
        )
    else:
        # In a language whose comments are not known, the sentence itself is inserted.
        head = before.text[: before.offset]
        indentation = head[: len(head) - len(head.lstrip())]
        above = before.prefix[: len(before.prefix) - len(head)]
        prefix = f"{above}{indentation}{comment or selection.words}\n{head}"
        request = session.code_request(snapshot, settings, prefix, purpose="propose")
    return ProposalRequest(selection.words, snapshot, before.position(before.offset), "", request)


COMMAND_HANDLERS: Mapping[str, CommandHandler] = {
    GENERATE_COMMAND: generate,
    PROPOSE_COMMAND: propose,
    EDIT_COMMAND: edit,
    DOCUMENT_COMMAND: document_function,
    TEST_COMMAND: test_function,
    ACCEPTED_COMMAND: accepted,
    RESTART_COMMAND: restart,
    SWITCH_ADAPTER_COMMAND: switch_adapter,
    LIST_ADAPTERS_COMMAND: list_adapters,
    STATUS_COMMAND: show_status,
    WHY_COMMAND: why,
}
