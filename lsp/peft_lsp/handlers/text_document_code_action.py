"""``textDocument/codeAction`` and its command: generate code from a comment or a docstring, and insert it below.

The code goes in only where the prose still stands as it was; if it was edited meanwhile the user is told instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from lsprotocol import types

from peft_core.privacy.files import why_secret
from peft_lsp import comments, names
from peft_lsp.handlers.workspace_execute_command import GenerateArguments, answered, generate, lines_of
from peft_lsp.language_server import PeftLanguageServer


def register(server: PeftLanguageServer) -> None:
    """Offer the action and its command."""
    options = types.CodeActionOptions(code_action_kinds=[names.GENERATE_KIND])
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, options)(code_action)
    server.command(names.GENERATE)(answered(generate))


async def code_action(ls: PeftLanguageServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """One action where there is prose to work from, else none; also where suggestions while typing are off."""
    document = ls.documents.get(params.text_document.uri)
    if document is None or not _asked_for(params.context.only) or why_secret(document.uri, document.language):
        return []
    prose = comments.find_prose(document.lines, document.language, *lines_of(params.range))
    if prose is None or (await ls.settings.of(document.uri)).disables(document.language):
        return []
    title = f"Generate code from this {'docstring' if prose.docstring else 'comment'}"
    target = msgspec.to_builtins(GenerateArguments(document.uri, prose.first))
    command = types.Command(title, names.GENERATE, arguments=[target])
    return [types.CodeAction(title, kind=names.GENERATE_KIND, command=command)]


def _asked_for(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Whether a client that wants only some kinds wants ours (a kind includes those below it)."""
    kinds = [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in only or ()]
    return only is None or any(f"{names.GENERATE_KIND}.".startswith(f"{kind}.") for kind in kinds)
