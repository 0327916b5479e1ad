"""``textDocument/codeAction``: offer to generate code from a comment or a docstring."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from lsprotocol import types

from peft_core.privacy.files import why_secret
from peft_lsp import GENERATE_COMMAND, GENERATE_KIND, comments
from peft_lsp.handlers.workspace_execute_command import GenerateArguments, selected_lines
from peft_lsp.session import Session


async def code_action(session: Session, params: types.CodeActionParams) -> list[types.CodeAction]:
    """Return one action if there is a comment or docstring, else none.

    It is offered also if suggestions are switched off in general, but not in a language in which they are off.
    """
    document = session.documents.get(params.text_document.uri)
    if document is None or not _is_requested(params.context.only) or why_secret(document.file_uri, document.language):
        return []
    prose = comments.find_prose(document.lines, document.language, *selected_lines(params.range))
    if prose is None or (await session.settings.of(document.uri)).disables(document.language):
        return []
    title = f"Generate code from this {'docstring' if prose.docstring else 'comment'}"
    arguments = msgspec.to_builtins(GenerateArguments(document.uri, prose.first))
    command = types.Command(title, GENERATE_COMMAND, arguments=[arguments])
    return [types.CodeAction(title, kind=GENERATE_KIND, command=command)]


def _is_requested(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Return whether a client that requests only some kinds (``only``) requests ours; a kind includes its subkinds."""
    kinds = [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in only or ()]
    return only is None or any(f"{GENERATE_KIND}.".startswith(f"{kind}.") for kind in kinds)
