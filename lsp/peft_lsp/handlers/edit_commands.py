"""Commands that have the instruct model edit code: by an instruction, a function's documentation, and its tests.

Each returns a proposal (``proposals``) and changes nothing. A failure is answered as in ``workspace_execute_command``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from lsprotocol import types

from peft_core.api_types import MAX_INSTRUCTION, CompleteResponse, EditKind, EditRequest, FinishReason
from peft_core.errors import InvalidInput
from peft_core.privacy.files import why_secret
from peft_lsp.documents import MAX_LANGUAGE_CHARS, DocumentSnapshot, OpenDocument, model_text
from peft_lsp.functions import FunctionLines, find_function, name_of_tests
from peft_lsp.proposals import ProposalDraft, ProposalTarget
from peft_lsp.session import Session

MAX_SELECTION_CHARS = 20_000
MAX_NAME_CHARS = 200
PROGRESS_TITLES = {
    EditKind.CHANGE: "Editing the selection",
    EditKind.DOCSTRING: "Writing documentation",
    EditKind.TEST: "Writing a test",
}


async def edit(session: Session, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Propose the selected lines as an instruction changes them. Argument: ``ProposalTarget``.

    An empty range means the function at the cursor, and where there is none the cursor's line.
    """
    target, document = proposal_target(session, params)
    if document is None:
        return None
    instruction = target.instruction.strip()
    if not instruction:
        raise InvalidInput("there is no instruction", fix="Say what is to be done with the selection")
    if len(instruction) > MAX_INSTRUCTION:
        raise InvalidInput(f"the instruction has {len(instruction)} characters", fix=f"Use at most {MAX_INSTRUCTION}")
    first, last = _lines_to_edit(document, target.range.range())
    snapshot, request = _request(session, document, first, last, EditKind.CHANGE)
    request = msgspec.structs.replace(request, instruction=instruction)
    span = types.Range(snapshot.position(0), document.at_end_of_line(last, session.documents.encoding).end_of_line)
    draft = ProposalDraft(session.client, target, snapshot, span, instruction)
    response = await _ask(session, request, params, draft)
    if response is not None and response.text == request.selection:
        session.client.warn("the model changed nothing; say in other words what is to be done")
        return None
    return _checked(session, snapshot, draft, response)


async def document_function(session: Session, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Propose the documentation comment of a function that has none. Argument: ``ProposalTarget``."""
    target, document = proposal_target(session, params)
    if document is None:
        return None
    function = _function(document, target.range.range())
    if function.documented:
        raise InvalidInput(
            f"`{function.name}` is documented already",
            fix="Select what is there and use Edit Selection, or remove it first",
        )
    _, request = _request(session, document, function.first, function.last, EditKind.DOCSTRING)
    snapshot = document.around(function.comment_at, 0, session.documents.encoding)
    place = snapshot.position(0)

    def layout(comment: str) -> str:
        return "".join(f"{function.indentation}{line}".rstrip() + "\n" for line in comment.split("\n"))

    title = f"documentation of {function.name}"
    draft = ProposalDraft(session.client, target, snapshot, types.Range(place, place), title, layout=layout)
    response = await _ask(session, _of(request, function), params, draft)
    return _checked(session, snapshot, draft, response)


async def test_function(session: Session, params: types.ExecuteCommandParams) -> dict[str, Any] | None:
    """Propose tests of a function, for a file of their own. Argument: ``ProposalTarget``."""
    target, document = proposal_target(session, params)
    if document is None:
        return None
    function = _function(document, target.range.range())
    snapshot, request = _request(session, document, function.first, function.last, EditKind.TEST)
    name = name_of_tests(snapshot.path or "", document.language)
    start = types.Position(0, 0)
    draft = ProposalDraft(
        *(session.client, target, snapshot, types.Range(start, start), f"tests of {function.name}"),
        file_name=name,
        layout=lambda text: f"{text}\n",
    )
    response = await _ask(session, _of(request, function), params, draft)
    return _checked(session, snapshot, draft, response)


def proposal_target(session: Session, params: types.ExecuteCommandParams) -> tuple[ProposalTarget, OpenDocument | None]:
    """Return what is asked for, and its document; None, and the user told why, if it is never shown to the model."""
    (target,) = msgspec.convert(params.arguments or [], tuple[ProposalTarget])
    document = session.documents.get(target.uri)
    if document is None:
        raise InvalidInput("that document is not open", fix="Open it in the editor first")
    if (why := why_secret(document.file_uri, document.language)) is not None:
        session.client.inform(why)
        return target, None
    return target, document


def selected_lines(span: types.Range) -> tuple[int, int]:
    """Return the first and last line of a selection; one of whole lines ends at the start of the next line."""
    first, last = span.start.line, span.end.line
    return first, last - 1 if last > first and span.end.character == 0 else last


def _lines_to_edit(document: OpenDocument, span: types.Range) -> tuple[int, int]:
    first, last = (min(line, len(document.lines) - 1) for line in selected_lines(span))
    if span.start == span.end and (function := find_function(document.lines, document.language, first, last)):
        return function.first, function.last
    while first < last and not document.lines[first].strip():
        first += 1
    while last > first and not document.lines[last].strip():
        last -= 1
    if not document.lines[first].strip():
        raise InvalidInput("there is nothing to edit", fix="Select lines, or place the cursor in a function")
    return first, last


def _function(document: OpenDocument, span: types.Range) -> FunctionLines:
    first, last = (min(line, len(document.lines) - 1) for line in selected_lines(span))
    function = find_function(document.lines, document.language, first, last)
    if function is None:
        raise InvalidInput("there is no function here", fix="Place the cursor in a function with a body of its own")
    return function


def _request(
    session: Session, document: OpenDocument, first: int, last: int, kind: EditKind
) -> tuple[DocumentSnapshot, EditRequest]:
    """Make a request about whole lines, and take a snapshot at their beginning."""
    encoding = session.documents.encoding
    snapshot = document.around(first, 0, encoding)
    end = document.at_end_of_line(last, encoding)
    selection = model_text(document.between((first, 0), (last, end.offset)))
    if len(selection) > MAX_SELECTION_CHARS:
        raise InvalidInput(
            f"the selection has {len(selection)} characters",
            why=f"at most {MAX_SELECTION_CHARS} can be edited at a time",
            fix="Select fewer lines",
        )
    return snapshot, EditRequest(
        selection=selection,
        before=snapshot.prefix,
        after=end.suffix,
        kind=kind,
        language=document.language[:MAX_LANGUAGE_CHARS],
        path=snapshot.real_path,
    )


def _of(request: EditRequest, function: FunctionLines) -> EditRequest:
    name, owner = function.name[:MAX_NAME_CHARS], function.owner[:MAX_NAME_CHARS]
    return msgspec.structs.replace(request, name=name, owner=owner)


async def _ask(
    session: Session, request: EditRequest, params: types.ExecuteCommandParams, draft: ProposalDraft
) -> CompleteResponse | None:
    """Ask the model while a progress bar is shown; None if the user stopped it. Raises PeftDaemonError."""
    return await session.client.run_with_progress(
        PROGRESS_TITLES[request.kind],
        params.work_done_token,
        lambda bar: session.daemon.generate(request, bar.report, draft.grow),
    )


def _checked(
    session: Session, snapshot: DocumentSnapshot, draft: ProposalDraft, response: CompleteResponse | None
) -> dict[str, Any] | None:
    """Return the proposal; None, and the user told why, if it cannot be used."""
    if response is None:
        return None
    if response.finish_reason is not FinishReason.STOP:
        session.client.warn("the model came to no end; select fewer lines, or say in other words what is to be done")
    elif not response.text.strip():
        session.client.warn("the model had no answer; say in other words what is to be done")
    elif not session.documents.is_current(snapshot):
        session.client.warn("the document was edited meanwhile; nothing is proposed")
    else:
        return draft.whole(response.text)
    return None
