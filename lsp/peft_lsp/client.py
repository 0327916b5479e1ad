"""The editor at the other end: messages to the user, progress bars, settings and edits.

The only module besides ``server`` that talks through the language server library.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.progress import Progress

from peft_core.tasks import BackgroundTasks
from peft_lsp import MORE_NOTIFICATION, SETTINGS_SECTION, STATUS_NOTIFICATION
from peft_lsp.daemon_connection import ServerState, Status
from peft_lsp.documents import DocumentSnapshot

log = logging.getLogger(__name__)

T = TypeVar("T")
ProgressToken = str | int


class Client:
    """What the server sends to its editor."""

    def __init__(self, server: LanguageServer, *, shows_questions: bool = False) -> None:
        """``shows_questions``: the client shows messages with buttons."""
        self._server = server
        self.shows_questions = shows_questions
        self._loading = LoadingProgress(server.work_done_progress)
        self._shown: set[str] = set()

    def warn(self, message: str) -> None:
        """Show the user a warning."""
        self._show(types.MessageType.Warning, message)

    def inform(self, message: str) -> None:
        """Show the user a message that is not a warning."""
        self._show(types.MessageType.Info, message)

    def warn_once(self, message: str) -> None:
        """Show the user a warning; the same one again is only logged."""
        log.warning("%s", message)
        self._once(self.warn, message)

    def inform_once(self, message: str) -> None:
        """Show the user a message; the same one again is only logged."""
        log.info("%s", message)
        self._once(self.inform, message)

    async def ask(self, message: str, answers: tuple[str, ...]) -> str | None:
        """Show the user a question with a button for each answer; return the chosen one, None for none."""
        actions = [types.MessageActionItem(title=answer) for answer in answers]
        params = types.ShowMessageRequestParams(types.MessageType.Info, f"peft-daemon: {message}", actions)
        try:
            chosen = await self._server.window_show_message_request_async(params)
        except JsonRpcException as error:
            log.info("the client shows no questions: %s", error)
            return None
        return chosen.title if chosen is not None else None

    def show_status(self, status: Status) -> None:
        """Send the status, and show it by a progress bar while a model loads and by a warning for an error."""
        self._server.protocol.notify(STATUS_NOTIFICATION, msgspec.to_builtins(status))
        if self.shows_progress:
            self._loading.follow(status)
        if status.state is ServerState.ERROR:
            self.warn_once(status.message)

    def announce_more(self, snapshot: DocumentSnapshot) -> None:
        """Tell the editor that the suggestion at this position has grown."""
        cursor = snapshot.position(snapshot.offset)
        position = {"line": cursor.line, "character": cursor.character}
        params = {"uri": snapshot.uri, "version": snapshot.version, "position": position}
        self._server.protocol.notify(MORE_NOTIFICATION, params)

    def report_partial_result(self, token: ProgressToken, value: object) -> None:
        """Send a part of an answer, as far as it is known, to an editor that gave a token for it."""
        self._server.protocol.notify(types.PROGRESS, types.ProgressParams(token=token, value=value))

    async def pull_settings(self, uri: str | None) -> object:
        """Ask for the settings of a document, or the general ones; None if the client does not answer."""
        workspace = self._server.client_capabilities.workspace
        if workspace is None or not workspace.configuration:
            return None
        item = types.ConfigurationItem(scope_uri=uri, section=SETTINGS_SECTION)
        try:
            answers = await self._server.workspace_configuration_async(types.ConfigurationParams([item]))
        except JsonRpcException as error:
            log.warning("the client does not send its settings: %s", error)
            return None
        return answers[0] if answers else None

    async def watch_settings(self) -> None:
        """Register for changes of settings, if the client needs that."""
        workspace = self._server.client_capabilities.workspace
        ability = workspace.did_change_configuration if workspace else None
        if ability is None or not ability.dynamic_registration:
            return
        method = types.WORKSPACE_DID_CHANGE_CONFIGURATION
        options = types.DidChangeConfigurationRegistrationOptions(section=SETTINGS_SECTION)
        params = types.RegistrationParams([types.Registration(SETTINGS_SECTION, method, options)])
        try:
            await self._server.client_register_capability_async(params)
        except JsonRpcException as error:
            log.warning("the client does not report changed settings: %s", error)

    async def apply_edit(self, uri: str, version: int, edit: types.TextEdit, label: str) -> bool:
        """Have the editor change a document; return whether it did, and warn the user if not."""
        workspace = self._server.client_capabilities.workspace
        ability = workspace.workspace_edit if workspace else None
        if ability is not None and ability.document_changes:
            # With its version, so that the editor refuses an edit to a changed document.
            identity = types.OptionalVersionedTextDocumentIdentifier(uri, version)
            change = types.WorkspaceEdit(document_changes=[types.TextDocumentEdit(identity, [edit])])
        else:
            change = types.WorkspaceEdit(changes={uri: [edit]})
        answer = await self._server.workspace_apply_edit_async(types.ApplyWorkspaceEditParams(change, label=label))
        if not answer.applied:
            self.warn(f"the editor did not insert the code: {answer.failure_reason or 'it gave no reason'}")
        return answer.applied

    async def run_with_progress(
        self, title: str, token: ProgressToken | None, work: Callable[[ProgressBar], Coroutine[Any, Any, T]]
    ) -> T | None:
        """Do the work while a progress bar with a stop button is shown; None if the user stopped it.

        Without a ``token`` from the client, the server creates the bar.
        """
        progress = self._server.work_done_progress
        if token is None and self.shows_progress:
            token = await create_progress_token(progress)
        async with open_progress_bar(progress, token, title, cancellable=True) as bar:
            return await bar.run_stoppable(work(bar))

    @property
    def shows_progress(self) -> bool:
        """Whether the client shows progress that the server begins."""
        window = self._server.client_capabilities.window
        return window is not None and bool(window.work_done_progress)

    def _show(self, kind: types.MessageType, message: str) -> None:
        self._server.window_show_message(types.ShowMessageParams(kind, f"peft-daemon: {message}"))

    def _once(self, show: Callable[[str], None], message: str) -> None:
        if message not in self._shown:
            self._shown.add(message)
            show(message)


class ProgressBar:
    """One progress bar; without a token nothing is shown."""

    def __init__(self, progress: Progress, token: ProgressToken | None) -> None:
        self._progress, self._token = progress, token

    def report(self, message: str) -> None:
        """Show a message on the progress of the work."""
        if self._token is not None:
            self._progress.report(self._token, types.WorkDoneProgressReport(message=message))

    async def run_stoppable(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work; None if the user stopped it with the bar's button."""
        task = asyncio.create_task(work)
        if self._token is not None:
            self._progress.tokens[self._token].add_done_callback(lambda _: task.cancel())
        try:
            return await task
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) and this.cancelling():
                raise  # the request itself was cancelled
            return None


@asynccontextmanager
async def open_progress_bar(
    progress: Progress, token: ProgressToken | None, title: str, *, cancellable: bool
) -> AsyncIterator[ProgressBar]:
    """Show a progress bar during the block; without a token none is shown."""
    if token is not None:
        progress.begin(token, types.WorkDoneProgressBegin(title=title, cancellable=cancellable))
    try:
        yield ProgressBar(progress, token)
    finally:
        if token is not None:
            progress.end(token, types.WorkDoneProgressEnd())
            progress.tokens.pop(token, None)


async def create_progress_token(progress: Progress) -> ProgressToken | None:
    """Create a token for a progress bar of the server's; None if the client refuses it."""
    token = str(uuid.uuid4())
    try:
        await progress.create_async(token)
    except JsonRpcException:
        return None
    return token


class LoadingProgress:
    """Shows the client's own progress bar for as long as the status is LOADING."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loaded: asyncio.Event | None = None
        self._tasks = BackgroundTasks(log, "the progress of loading could not be shown")

    def follow(self, status: Status) -> None:
        """Begin or end the bar; call it with each change of the status."""
        if status.state is ServerState.LOADING:
            if self._loaded is None:
                self._loaded = asyncio.Event()
                self._tasks.spawn(self._show(status.model, self._loaded))
        elif self._loaded is not None:
            self._loaded.set()
            self._loaded = None

    async def _show(self, model: str, loaded: asyncio.Event) -> None:
        token = await create_progress_token(self._progress)
        title = f"Loading {model}" if model else "Starting peft-daemon"
        async with open_progress_bar(self._progress, token, title, cancellable=False):
            await loaded.wait()
