"""This product, as an editor has it: the language server over its standard streams, and the daemon it starts.

Both are the real programs in a home of their own. What the daemon counts (tokens, answers without the model) is read
from its ``/metrics``; a daemon that does not count something leaves it unknown.
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

from peft_core.errors import EngineFailed
from peft_core.paths import Paths
from peft_core.processes import python_module, start_async
from peft_core.settings import resolve
from peft_daemon.adapters.shipping import provide_shipped
from peft_evaluation.typing_benchmark.policies.base import (
    BenchModel,
    CpuMeter,
    DocumentView,
    PolicyAnswer,
    ResourceUsage,
)
from peft_evaluation.typing_benchmark.policies.json_rpc import JsonRpc
from peft_evaluation.typing_benchmark.policies.positions import offset, position, span
from peft_evaluation.typing_benchmark.replay import TraceWorkspace
from peft_evaluation.typing_benchmark.screen import GhostText
from peft_evaluation.typing_benchmark.traces import TraceEdit

READY_S = 180.0
LOOK_S = 2.0
_COMPLETIONS = "peft_daemon_completions_total"
AUTOMATIC = 2
"""InlineCompletionTriggerKind of the protocol."""
_CAPABILITIES = {
    "general": {"positionEncodings": ["utf-16"]},
    "workspace": {"configuration": True, "workspaceFolders": True, "didChangeConfiguration": {}},
    "textDocument": {"synchronization": {"didSave": True}, "inlineCompletion": {}},
    "window": {"workDoneProgress": True},
}


class _Info(msgspec.Struct):
    """What of ``daemon.json`` is used."""

    pid: int
    address: str
    token: str = ""


class OursSession:
    """One editor session; ``settings`` are those of the editor (docs/editors.md)."""

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
        self._rpc = JsonRpc(self._asked, self._told)
        self._ready = asyncio.Event()
        self._trouble = ""
        self._spending = CpuMeter(self._pids)
        self._looking: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient | None = None
        self._counted: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._requests = 0

    async def start(self) -> None:
        """Start the language server, which starts the daemon; raises EngineFailed when no model is loaded in time."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        # As `peft-daemon setup` leaves an installation: the adapters are there when the daemon starts.
        settings, paths = resolve(environ=self._environ).settings, Paths.from_environment(self._environ)
        await asyncio.to_thread(provide_shipped, settings, paths)
        command = python_module("peft_daemon", "lsp")
        await self._rpc.start(command, self._environ, self._home / "lsp.log")
        folder = {"uri": self._workspace.folder.as_uri(), "name": "work"}
        hello = {
            "processId": None,
            "rootUri": folder["uri"],
            "workspaceFolders": [folder],
            "capabilities": _CAPABILITIES,
            "initializationOptions": self._settings,
        }
        await self._rpc.request("initialize", hello)
        self._rpc.notify("initialized", {})
        try:
            await asyncio.wait_for(self._ready.wait(), READY_S)
        except TimeoutError:
            self._trouble = f"not ready after {READY_S:.0f} s{self._last_words()}"
        if self._trouble:
            raise EngineFailed("the daemon did not start", why=self._trouble, fix="Run `peft-daemon doctor`")
        self._http = self._connect()
        self._before = await self._metrics()
        self._counted = self._before
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End the language server and the daemon."""
        if self._looking is not None:
            self._looking.cancel()
        if self._http is not None:
            await self._http.aclose()
        await self._rpc.stop()
        stop = await start_async(
            python_module("peft_daemon", "stop"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            environ={**os.environ, **self._environ},
        )
        await stop.wait()

    def opened(self, view: DocumentView) -> None:
        """``textDocument/didOpen``."""
        document = {"uri": self._uri(view), "languageId": "python", "version": view.version, "text": view.text}
        self._rpc.notify("textDocument/didOpen", {"textDocument": document})

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """Another tab: the protocol has no message for it, but the cursor is elsewhere."""
        self.moved(view)

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """``textDocument/didChange``, the edit alone."""
        change = {"range": span(before.text, edit.start, edit.end), "text": edit.text}
        document = {"uri": self._uri(view), "version": view.version}
        self._rpc.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def moved(self, view: DocumentView) -> None:
        """What the product's extension tells of a cursor that moved without an edit."""
        place = position(view.text, view.cursor)
        self._rpc.notify("peft-daemon/cursor", {"uri": self._uri(view), "position": place})

    def saved(self, view: DocumentView) -> None:
        """``textDocument/didSave``."""
        self._rpc.notify("textDocument/didSave", {"textDocument": {"uri": self._uri(view)}})

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """``textDocument/inlineCompletion``, asked for by a keystroke."""
        self._requests += 1
        params = {
            "textDocument": {"uri": self._uri(view)},
            "position": position(view.text, view.cursor),
            "context": {"triggerKind": AUTOMATIC},
        }
        found = await self._rpc.request("textDocument/inlineCompletion", params)
        items = found["items"] if isinstance(found, dict) else found or []
        cached = await self._without_model() if items else None
        if not items:
            return PolicyAnswer(None, cached)
        item = items[0]
        text = item["insertText"] if isinstance(item["insertText"], str) else item["insertText"]["value"]
        place = item.get("range") or span(view.text, view.cursor, view.cursor)
        return PolicyAnswer(GhostText(offset(view.text, place["start"]), offset(view.text, place["end"]), text), cached)

    async def totals(self) -> ResourceUsage:
        """From the daemon's metrics."""
        self._spending.look()
        await asyncio.sleep(0.2)  # what was cancelled last is counted when it has ended
        now = await self._metrics()

        def since(name: str) -> int | None:
            return None if name not in now else int(now[name] - self._before.get(name, 0.0))

        counted = any(name.startswith(_COMPLETIONS) for name in now)
        return ResourceUsage(
            requests=self._requests,
            prompt_evaluated=since('peft_daemon_prompt_tokens_total{how="evaluated"}') or 0,
            prompt_reused=since('peft_daemon_prompt_tokens_total{how="reused"}') or 0,
            decoded=since("peft_daemon_decoded_tokens_total") or 0,
            cpu_s=self._spending.seconds,
            kept=(since(f'{_COMPLETIONS}{{origin="kept"}}') or 0) if counted else None,
            joined=(since(f'{_COMPLETIONS}{{origin="joined"}}') or 0) if counted else None,
        )

    async def _without_model(self) -> bool | None:
        """Whether the answer just given was an earlier one: which of the daemon's counters has moved since."""
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
            raise EngineFailed("the daemon left no word of itself", why=str(self._home), fix="Run `peft-daemon doctor`")
        if info.address.startswith("unix:"):
            transport = httpx.AsyncHTTPTransport(uds=info.address.removeprefix("unix:"))
            return httpx.AsyncClient(transport=transport, base_url="http://localhost")
        headers = {"Authorization": f"Bearer {info.token}"}
        return httpx.AsyncClient(base_url=info.address, headers=headers, trust_env=False)

    def _info(self) -> _Info | None:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return msgspec.json.decode((self._home / "run" / "daemon.json").read_bytes(), type=_Info)
        return None

    def _last_words(self) -> str:
        """The ends of both programs' logs."""
        words = []
        for log in (self._home / "lsp.log", self._home / "state" / "daemon.log"):
            with contextlib.suppress(OSError, IndexError):
                words.append(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1])
        return "".join(f" | {each}" for each in words)

    def _pids(self) -> list[int]:
        info = self._info()
        return [pid for pid in (self._rpc.pid, info.pid if info else None) if pid is not None]

    async def _look(self) -> None:
        while True:
            self._spending.look()
            await asyncio.sleep(LOOK_S)

    def _uri(self, view: DocumentView) -> str:
        return self._workspace.path(view.file).as_uri()

    def _asked(self, method: str, params: Any) -> Any:
        """The server's requests: only its settings are answered with anything."""
        return [self._settings for _ in params["items"]] if method == "workspace/configuration" else None

    def _told(self, method: str, params: Any) -> None:
        if method == "peft-daemon/status" and params["state"] in ("idle", "error"):
            self._trouble = params.get("message", "") if params["state"] == "error" else ""
            self._ready.set()
        elif method == "peft-daemon/more" and self.on_more is not None:
            self.on_more()
