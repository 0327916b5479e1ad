"""``textDocument/codeAction`` and its command: generate code from a comment or a docstring, and insert it below.

The code goes in only where the prose still stands as it was; if it was edited meanwhile the user is told instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from lsprotocol import types

from peft_daemon.errors import InvalidInput
from peft_daemon.protocol import CompleteRequest, CompleteResponse, DeltaEvent
from peft_lsp import comments, names, progress
from peft_lsp.commands import answered
from peft_lsp.daemon import READY_TIMEOUT_S
from peft_lsp.documents import Snapshot
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.positions import content
from peft_lsp.requests import request_at

TITLE = "Generating code"
MOST_TOKENS = 256
TIME_BUDGET_MS = 120_000
"""There is a bar to watch and to stop: more room than for ghost text."""


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
    if document is None or document.language in ls.configuration.disabled_languages:
        return []
    if not _asked_for(params.context.only):
        return []
    first, last = params.range.start.line, params.range.end.line
    if last > first and params.range.end.character == 0:
        last -= 1  # whole lines are selected: the end stands at the start of the line below them
    prose = comments.find(document.lines, document.language, first, last)
    if prose is None:
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
    prose = comments.find(document.lines, document.language, target.line, target.line) if document else None
    if document is None or prose is None:
        raise InvalidInput("no comment or docstring to generate code from", fix="Place the cursor on one")
    snapshot = document.around(prose.last, len(content(document.lines[prose.last])), ls.documents.encoding)
    token = params.work_done_token
    if token is None and ls.shows_progress:
        token = await progress.new_token(ls.work_done_progress)
    async with progress.bar(ls.work_done_progress, token, TITLE, cancellable=True) as bar:
        response = await bar.stoppable(_ask(ls, _request(ls, snapshot, prose), bar))
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


def _request(ls: PeftLanguageServer, snapshot: Snapshot, prose: comments.Prose) -> CompleteRequest:
    """What the daemon is asked: to go on below the prose.

    The prose is not sent as an ``intent``: in its place the model sees what stands around it as well, and does not
    write the function's head, or the class around a method, a second time.
    """
    return msgspec.structs.replace(
        request_at(ls, snapshot, purpose="generate"),
        prefix=f"{snapshot.prefix}\n{prose.indentation}",
        single_line=False,
        max_tokens=MOST_TOKENS,
        time_budget_ms=TIME_BUDGET_MS,
    )


async def _ask(ls: PeftLanguageServer, request: CompleteRequest, bar: progress.Bar) -> CompleteResponse:
    client = await ls.daemon.client()
    bar.report("waiting for the model")
    await client.wait_ready(READY_TIMEOUT_S)
    characters = 0
    with ls.board.thinking():
        async with aclosing(client.stream(request)) as events:
            async for event in events:
                if not isinstance(event, DeltaEvent):
                    return event.response
                characters += len(event.text)
                bar.report(f"{characters} characters")
    raise AssertionError("a stream ends with a final event or an error")


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
    answer = await ls.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(edit, label=TITLE))
    if not answer.applied:
        ls.warn(f"the editor did not take the code: {answer.failure_reason or 'it gave no reason'}")
    return answer.applied


def _asked_for(only: Sequence[types.CodeActionKind | str] | None) -> bool:
    """Whether a client that wants only some kinds wants ours (a kind includes those below it)."""
    kinds = [kind.value if isinstance(kind, types.CodeActionKind) else kind for kind in only or ()]
    return only is None or any(f"{names.GENERATE_KIND}.".startswith(f"{kind}.") for kind in kinds)
