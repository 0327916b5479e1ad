"""Code from prose, with a progress bar and a way to stop it: what inserting and proposing such code have in common."""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from peft_core.api_types import CompleteRequest, CompleteResponse, DeltaEvent
from peft_lsp import progress
from peft_lsp.comments import Prose
from peft_lsp.daemon_connection import READY_TIMEOUT_S
from peft_lsp.documents import DocumentSnapshot, OpenDocument
from peft_lsp.language_server import PeftLanguageServer
from peft_lsp.positions import content
from peft_lsp.requests import request_at
from peft_lsp.settings import EditorSettings

TITLE = "Generating code"
MOST_TOKENS = 256
TIME_BUDGET_MS = 120_000
"""There is a bar to watch and to stop: more room than for ghost text."""


def below(ls: PeftLanguageServer, document: OpenDocument, prose: Prose) -> DocumentSnapshot:
    """The document at the end of the prose, where its code goes in."""
    return document.around(prose.last, len(content(document.lines[prose.last])), ls.documents.encoding)


def request_for(
    ls: PeftLanguageServer, snapshot: DocumentSnapshot, settings: EditorSettings, prefix: str, *, purpose: str
) -> CompleteRequest:
    """What the daemon is asked: to go on after ``prefix``, which ends with the prose and an indentation.

    The prose is not sent as an ``intent``: in its place the model sees what stands around it as well, and does not
    write the function's head, or the class around a method, a second time.
    """
    return msgspec.structs.replace(
        request_at(ls, snapshot, settings, purpose=purpose),
        prefix=prefix,
        single_line=False,
        max_tokens=MOST_TOKENS,
        time_budget_ms=TIME_BUDGET_MS,
    )


async def answer(
    ls: PeftLanguageServer, request: CompleteRequest, token: progress.ProgressToken | None
) -> CompleteResponse | None:
    """The model's answer; None if the user stopped it. Without a token of the client's the bar is the server's.

    Raises PeftDaemonError when the daemon cannot answer.
    """
    if token is None and ls.shows_progress:
        token = await progress.create_progress_token(ls.work_done_progress)
    async with progress.open_progress_bar(ls.work_done_progress, token, TITLE, cancellable=True) as bar:
        return await bar.stoppable(_ask(ls, request, bar))


async def _ask(ls: PeftLanguageServer, request: CompleteRequest, bar: progress.ProgressBar) -> CompleteResponse:
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
