"""``textDocument/codeAction``: code for a comment or a docstring, and documentation and tests of a function."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from lsprotocol import types

from peft_core.privacy.files import why_secret
from peft_lsp import (
    DOCUMENT_COMMAND,
    DOCUMENT_KIND,
    GENERATE_COMMAND,
    GENERATE_KIND,
    TEST_COMMAND,
    TEST_KIND,
    comments,
)
from peft_lsp.documents import OpenDocument
from peft_lsp.functions import find_function
from peft_lsp.handlers.edit_commands import selected_lines
from peft_lsp.handlers.workspace_execute_command import GenerateArguments
from peft_lsp.proposals import ProposalTarget, WirePosition, WireRange
from peft_lsp.session import Session


async def code_action(session: Session, params: types.CodeActionParams) -> list[types.CodeAction]:
    """Return what can be done at a range: nothing in a document in which suggestions are off for its language.

    Actions for a function return proposals, which an editor has to show (``proposals`` among its
    initialization options).
    """
    document = session.documents.get(params.text_document.uri)
    if document is None or why_secret(document.file_uri, document.language):
        return []
    actions = [*_for_prose(document, params.range)]
    if session.takes_proposals:
        actions += _for_function(document, params.range)
    actions = [each for each in actions if _is_requested(params.context.only, str(each.kind))]
    if not actions or (await session.settings.of(document.uri)).disables(document.language):
        return []
    return actions


def _for_prose(document: OpenDocument, span: types.Range) -> list[types.CodeAction]:
    prose = comments.find_prose(document.lines, document.language, *selected_lines(span))
    if prose is None:
        return []
    title = f"Generate code from this {'docstring' if prose.docstring else 'comment'}"
    arguments = msgspec.to_builtins(GenerateArguments(document.uri, prose.first))
    command = types.Command(title, GENERATE_COMMAND, arguments=[arguments])
    return [types.CodeAction(title, kind=GENERATE_KIND, command=command)]


def _for_function(document: OpenDocument, span: types.Range) -> list[types.CodeAction]:
    function = find_function(document.lines, document.language, *selected_lines(span))
    if function is None:
        return []
    place = WireRange(WirePosition.of(span.start), WirePosition.of(span.end))
    target = msgspec.to_builtins(ProposalTarget(uri=document.uri, range=place))
    offered = [(f"Write a test of {function.name}", TEST_KIND, TEST_COMMAND)]
    if not function.documented:
        offered.insert(0, (f"Document {function.name}", DOCUMENT_KIND, DOCUMENT_COMMAND))
    return [
        types.CodeAction(title, kind=kind, command=types.Command(title, command, arguments=[target]))
        for title, kind, command in offered
    ]


def _is_requested(only: Sequence[types.CodeActionKind | str] | None, own: str) -> bool:
    """Return whether a client that requests only some kinds (``only``) requests ours; a kind includes its subkinds."""
    kinds = [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in only or ()]
    return only is None or any(f"{own}.".startswith(f"{kind}.") for kind in kinds)
