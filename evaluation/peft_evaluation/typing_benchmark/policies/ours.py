"""This product as an editor uses it: the language server over standard input and output, and the daemon it starts.

Both are the real programs, with a home folder of their own. Numbers of tokens and of answers without the model are read
from the daemon's ``/metrics``; numbers that it does not report are unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec
from lsprotocol import types

from peft_core.errors import EngineFailed
from peft_core.paths import Paths
from peft_core.processes import python_module, start_async
from peft_core.settings import resolve
from peft_daemon.adapters.shipped_adapters import update_shipped_adapters
from peft_evaluation.typing_benchmark.policies.base import (
    BenchModel,
    CpuMeter,
    DocumentView,
    PolicyAnswer,
    ResourceUsage,
)
from peft_evaluation.typing_benchmark.policies.editor_client import EditorClient, lsp_position, lsp_range, offset_of
from peft_evaluation.typing_benchmark.replay import TraceWorkspace
from peft_evaluation.typing_benchmark.screen import GhostText
from peft_evaluation.typing_benchmark.traces import TraceEdit

READY_S = 180.0
SAMPLE_S = 2.0
_COMPLETIONS = "peft_daemon_completions_total"
_CAPABILITIES = types.ClientCapabilities(
    general=types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind.Utf16]),
    workspace=types.WorkspaceClientCapabilities(
        configuration=True,
        workspace_folders=True,
        did_change_configuration=types.DidChangeConfigurationClientCapabilities(),
    ),
    text_document=types.TextDocumentClientCapabilities(
        synchronization=types.TextDocumentSyncClientCapabilities(did_save=True),
        inline_completion=types.InlineCompletionClientCapabilities(),
    ),
    window=types.WindowClientCapabilities(work_done_progress=True),
)


class _Info(msgspec.Struct):
    """The fields of ``daemon.json`` that are used here."""

    pid: int
    address: str
    token: str = ""


class OursSession:
    """An editor session; ``settings`` are the editor's settings (docs/editors.md)."""

    def __init__(self, engine: BenchModel, workspace: TraceWorkspace, settings: Mapping[str, Any]) -> None:
        self.on_more: Callable[[], None] | None = None
        self._workspace, self._settings = workspace, dict(settings)
        self._home = workspace.home / "h"
        self._environ = {
            "PEFT_DAEMON_HOME": str(self._home),
            "PEFT_DAEMON_MODEL": engine.model_id,
            "PEFT_DAEMON_MODELS_DIR": str(engine.model_path.parent.parent),
            "PEFT_DAEMON_THREADS": str(engine.threads),
        }
        self._client = EditorClient(self._settings, self._on_notification)
        self._ready = asyncio.Event()
        self._failure = ""
        self._cpu = CpuMeter(self._pids)
        self._sampling: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient | None = None
        self._counted: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._requests = 0

    async def start(self) -> None:
        """Start the language server, which starts the daemon.

        Raises EngineFailed if no model is loaded in time.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # As after `peft-daemon setup`: the shipped adapters are installed when the daemon starts.
        settings, paths = resolve(environ=self._environ).settings, Paths.from_environment(self._environ)
        await asyncio.to_thread(update_shipped_adapters, settings, paths)
        command = python_module("peft_daemon", "lsp")
        await self._client.start(command, self._environ, self._home / "lsp.log")
        folder = self._workspace.folder.as_uri()
        parameters = types.InitializeParams(
            process_id=None,
            root_uri=folder,
            workspace_folders=[types.WorkspaceFolder(uri=folder, name="work")],
            capabilities=_CAPABILITIES,
            initialization_options=self._settings,
        )
        await self._client.request(types.INITIALIZE, parameters)
        self._client.initialized(types.InitializedParams())
        try:
            await asyncio.wait_for(self._ready.wait(), READY_S)
        except TimeoutError:
            self._failure = f"not ready after {READY_S:.0f} s{self._last_log_lines()}"
        if self._failure:
            raise EngineFailed("the daemon did not start", why=self._failure, fix="Run `peft-daemon doctor`")
        self._http = self._connect()
        self._before = await self._metrics()
        self._counted = self._before
        self._sampling = asyncio.create_task(self._sample_regularly())

    async def stop(self) -> None:
        """End the language server and the daemon."""
        if self._sampling is not None:
            self._sampling.cancel()
        if self._http is not None:
            await self._http.aclose()
        await self._client.end()
        stop = await start_async(
            python_module("peft_daemon", "stop"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            environ={**os.environ, **self._environ},
        )
        await stop.wait()

    def opened(self, view: DocumentView) -> None:
        """Send ``textDocument/didOpen``."""
        document = types.TextDocumentItem(
            uri=self._uri(view), language_id=types.LanguageKind.Python, version=view.version, text=view.text
        )
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=document))

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """Send the cursor's position; the protocol has no message for a change of the tab."""
        self.moved(view)

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """Send ``textDocument/didChange`` with the edit."""
        self._client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                text_document=types.VersionedTextDocumentIdentifier(uri=self._uri(view), version=view.version),
                content_changes=[
                    types.TextDocumentContentChangePartial(
                        range=lsp_range(before.text, edit.start, edit.end), text=edit.text
                    )
                ],
            )
        )

    def moved(self, view: DocumentView) -> None:
        """Send the notification that the product's extension sends when the cursor moves without an edit."""
        self._client.notify("peft-daemon/cursor", {"uri": self._uri(view), "position": _cursor_position(view)})

    def saved(self, view: DocumentView) -> None:
        """Send ``textDocument/didSave``."""
        identifier = types.TextDocumentIdentifier(uri=self._uri(view))
        self._client.text_document_did_save(types.DidSaveTextDocumentParams(text_document=identifier))

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """Request ``textDocument/inlineCompletion`` as an editor does after a keystroke."""
        self._requests += 1
        params = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(uri=self._uri(view)),
            position=lsp_position(view.text, view.cursor),
            context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Automatic),
        )
        found = await self._client.request(types.TEXT_DOCUMENT_INLINE_COMPLETION, params)
        items = found.items if isinstance(found, types.InlineCompletionList) else found or []
        if not items:
            return PolicyAnswer(None, None)
        cached = await self._without_model()
        item = items[0]
        text = item.insert_text if isinstance(item.insert_text, str) else item.insert_text.value
        if item.range is None:
            return PolicyAnswer(GhostText(view.cursor, view.cursor, text), cached)
        start, end = (offset_of(view.text, each) for each in (item.range.start, item.range.end))
        return PolicyAnswer(GhostText(start, end, text), cached)

    async def totals(self) -> ResourceUsage:
        """Return the usage from the daemon's metrics."""
        self._cpu.sample()
        await asyncio.sleep(0.2)  # a cancelled request is counted only when it has ended
        now = await self._metrics()

        def since(name: str) -> int | None:
            return None if name not in now else int(now[name] - self._before.get(name, 0.0))

        counted = any(name.startswith(_COMPLETIONS) for name in now)
        return ResourceUsage(
            requests=self._requests,
            prompt_evaluated=since('peft_daemon_prompt_tokens_total{how="evaluated"}') or 0,
            prompt_reused=since('peft_daemon_prompt_tokens_total{how="reused"}') or 0,
            decoded=since("peft_daemon_decoded_tokens_total") or 0,
            cpu_s=self._cpu.seconds,
            kept=(since(f'{_COMPLETIONS}{{origin="kept"}}') or 0) if counted else None,
            joined=(since(f'{_COMPLETIONS}{{origin="joined"}}') or 0) if counted else None,
        )

    async def _without_model(self) -> bool | None:
        """Return whether the last answer was a kept one, by the daemon's counters that increased; None: unknown."""
        before, self._counted = self._counted, await self._metrics()
        names = [name for name in self._counted if name.startswith(_COMPLETIONS)]
        moved = {name for name in names if self._counted[name] > before.get(name, 0.0)}
        return None if not moved else moved == {f'{_COMPLETIONS}{{origin="kept"}}'}

    async def _metrics(self) -> dict[str, float]:
        assert self._http is not None  # noqa: S101  (connected by ``start``)
        text = (await self._http.get("/metrics")).text
        return {name: float(value) for name, value in re.findall(r"^(peft_daemon_\S+) (\S+)$", text, re.MULTILINE)}

    def _connect(self) -> httpx.AsyncClient:
        info = self._info()
        if info is None:
            raise EngineFailed("the daemon has no daemon.json", why=str(self._home), fix="Run `peft-daemon doctor`")
        if info.address.startswith("unix:"):
            transport = httpx.AsyncHTTPTransport(uds=info.address.removeprefix("unix:"))
            return httpx.AsyncClient(transport=transport, base_url="http://localhost")
        headers = {"Authorization": f"Bearer {info.token}"}
        return httpx.AsyncClient(base_url=info.address, headers=headers, trust_env=False)

    def _info(self) -> _Info | None:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return msgspec.json.decode((self._home / "run" / "daemon.json").read_bytes(), type=_Info)
        return None

    def _last_log_lines(self) -> str:
        """Return the last lines of both programs' logs."""
        lines = []
        for log in (self._home / "lsp.log", self._home / "state" / "daemon.log"):
            with contextlib.suppress(OSError, IndexError):
                lines.append(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])
        return "".join(f" | {each}" for each in lines)

    def _pids(self) -> list[int]:
        info = self._info()
        return [pid for pid in (self._client.pid, info.pid if info else None) if pid is not None]

    async def _sample_regularly(self) -> None:
        while True:
            self._cpu.sample()
            await asyncio.sleep(SAMPLE_S)

    def _uri(self, view: DocumentView) -> str:
        return self._workspace.path(view.file).as_uri()

    def _on_notification(self, method: str, params: Any) -> None:
        if method == "peft-daemon/status" and params.state in ("idle", "error"):
            self._failure = getattr(params, "message", "") if params.state == "error" else ""
            self._ready.set()
        elif method == "peft-daemon/more" and self.on_more is not None:
            self.on_more()


def _cursor_position(view: DocumentView) -> dict[str, int]:
    position = lsp_position(view.text, view.cursor)
    return {"line": position.line, "character": position.character}
