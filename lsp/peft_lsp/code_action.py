"""``textDocument/codeAction`` and its command: generate code from a comment or a docstring, and insert it below.

The code goes in only where the prose still stands as it was; if it was edited meanwhile the user is told instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from lsprotocol import types

from peft_core.errors import InvalidInput
from peft_core.privacy.files import why_secret
from peft_lsp import comments, generation, names
from peft_lsp.commands import answered
from peft_lsp.documents import Snapshot
from peft_lsp.language_server import PeftLanguageServer


class Target(msgspec.Struct, frozen=True):
    """Argument of the command: a line of the comment or function."""

    uri: str
    line: int


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
    prose = comments.find(document.lines, document.language, *lines_of(params.range))
    if prose is None or (await ls.settings.of(document.uri)).disables(document.language):
        return []
    title = f"Generate code from this {'docstring' if prose.docstring else 'comment'}"
    target = msgspec.to_builtins(Target(document.uri, prose.first))
    command = types.Command(title, names.GENERATE, arguments=[target])
    return [types.CodeAction(title, kind=names.GENERATE_KIND, command=command)]


async def generate(ls: PeftLanguageServer, params: types.ExecuteCommandParams) -> bool:
    """Generate and insert; argument: ``Target``. Answers whether code was inserted.

    Raises PeftDaemonError when there is no prose at that line or the daemon cannot answer.
    """
    (target,) = msgspec.convert(params.arguments or [], tuple[Target])
    document = ls.documents.get(target.uri)
    if document is not None and (why := why_secret(document.uri, document.language)) is not None:
        ls.inform(why)
        return False
    prose = comments.find(document.lines, document.language, target.line, target.line) if document else None
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
    elif now is None or comments.find(now.lines, now.language, prose.first, prose.last) != prose:
        ls.warn("the comment was changed meanwhile; nothing was inserted")
    else:
        return await _insert(ls, snapshot, now.version, f"\n{prose.indentation}{code}")
    return False


async def _insert(ls: PeftLanguageServer, snapshot: Snapshot, version: int, text: str) -> bool:
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


def _asked_for(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Whether a client that wants only some kinds wants ours (a kind includes those below it)."""
    kinds = [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in only or ()]
    return only is None or any(f"{names.GENERATE_KIND}.".startswith(f"{kind}.") for kind in kinds)
