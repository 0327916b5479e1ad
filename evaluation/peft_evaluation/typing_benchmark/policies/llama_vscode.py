"""The policy of llama.vscode, re-created.

It sends one request at a time and never cancels it, keeps a cache of answers, requests in advance what follows a
suggestion, and sends a ring of context chunks. Sources: completion.ts, llama-server.ts, extra-context.ts and
package.json of ggml-org/llama.vscode (0.0.63, 3938fb3), with default settings. docs/typing-benchmark.md says what was
left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from peft_evaluation.typing_benchmark.policies.base import BenchModel, DocumentView, PolicyAnswer, ResourceUsage
from peft_evaluation.typing_benchmark.policies.llama_server import RivalServer
from peft_evaluation.typing_benchmark.policies.llama_vscode_state import (
    QUIET_S,
    UPDATE_S,
    ContextRing,
    CursorLines,
    InfillCache,
    InfillKey,
    is_discarded,
)
from peft_evaluation.typing_benchmark.screen import GhostText
from peft_evaluation.typing_benchmark.traces import TraceEdit

PREFIX_LINES, SUFFIX_LINES = 256, 64
PREDICT_TOKENS = 128
PROMPT_MS, PREDICT_MS = 500, 500
"""The defaults of package.json, which override those of configuration.ts."""
ALTERNATIVES = 3
"""Completions per request (``n_cmpl``)."""
SLOT = 0
MAX_LINE_SUFFIX_CHARS = 8
"""No request is sent if more text than this follows the cursor on its line."""
CACHE_ENTRIES = 250
POLL_S = 0.15
"""Interval at which a request checks whether the one before has ended."""
SAVE_DELAY_S = 1.0
"""Delay after saving a file until a chunk of it is picked."""
SEED = 0


class LlamaVscodeSession:
    """An editor session with the re-created extension."""

    def __init__(self, engine: BenchModel) -> None:
        self.on_more: Callable[[], None] | None = None
        self._server = RivalServer(engine)
        self._cache = InfillCache(CACHE_ENTRIES)
        self._ring = ContextRing(Random(SEED))  # noqa: S311  (has to be repeatable, not secret)
        self._busy = False
        self._asked_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Start the server."""
        await self._server.start()
        self._background(self._add_chunks())

    async def stop(self) -> None:
        """End the server and all tasks."""
        for task in self._tasks:
            task.cancel()
        await self._server.stop()

    def opened(self, view: DocumentView) -> None:
        """Pick a chunk of the file."""
        self._ring.around_cursor(view.file, CursorLines.of(view.text, view.cursor))

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """Pick a chunk of the file that was left, and one of the file that is shown."""
        self._ring.around_cursor(before.file, CursorLines.of(before.text, before.cursor))
        self._ring.around_cursor(view.file, CursorLines.of(view.text, view.cursor))

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """Do nothing: requests contain the text."""

    def moved(self, view: DocumentView) -> None:
        """Do nothing."""

    def saved(self, view: DocumentView) -> None:
        """Pick a chunk of the file after ``SAVE_DELAY_S``."""
        self._background(self._saved(view))

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """Return the first of the alternatives, after the previous request has ended.

        A request that was sent continues when the call is cancelled, and its answer is kept in the cache.
        """
        while self._busy:  # noqa: ASYNC110  (the extension polls; the delay is part of its policy)
            await asyncio.sleep(POLL_S)
        self._asked_at = time.monotonic()
        around = CursorLines.of(view.text, view.cursor)
        if len(around.behind) > MAX_LINE_SUFFIX_CHARS:
            return PolicyAnswer(None, cached=True)
        key = key_of(around)
        if (known := self._cache.get(key)) is not None:
            return self._answer(view, around, known, key, cached=True, overtaken=asyncio.Event())
        self._busy = True
        overtaken = asyncio.Event()
        try:
            return await asyncio.shield(self._background(self._ask(view, around, key, overtaken)))
        except asyncio.CancelledError:
            overtaken.set()
            raise

    async def totals(self) -> ResourceUsage:
        """Return the server's usage."""
        return await self._server.totals()

    async def _ask(
        self, view: DocumentView, around: CursorLines, key: InfillKey, overtaken: asyncio.Event
    ) -> PolicyAnswer:
        try:
            texts = await self._request(key, _indent(around.lines[around.line]))
            return self._answer(view, around, texts, key, cached=False, overtaken=overtaken)
        finally:
            self._busy = False

    def _answer(
        self,
        view: DocumentView,
        around: CursorLines,
        texts: Sequence[str],
        key: InfillKey,
        *,
        cached: bool,
        overtaken: asyncio.Event,
    ) -> PolicyAnswer:
        """Choose the alternative to show, keep all in the cache, and start the follow-up in the background."""
        alternatives = [lines for text in texts if not is_discarded(lines := without_empty_end(text), around)]
        if not alternatives:
            return PolicyAnswer(None, cached)
        fitting = [fitted(lines, around.behind) for lines in alternatives]
        if not cached:
            self._cache.put(key, fitting)
        self._background(self._follow_up(view, around, key, alternatives[0], overtaken))
        # The indentation that is already there is not inserted again.
        blank = len(around.before) if not around.before.strip() else 0
        return PolicyAnswer(GhostText(view.cursor, view.cursor, without_indent(fitting[0], blank)), cached)

    async def _follow_up(
        self, view: DocumentView, around: CursorLines, key: InfillKey, lines: list[str], overtaken: asyncio.Event
    ) -> None:
        """Request what follows the suggestion, and pick chunks, unless the request was cancelled in the meantime."""
        if not overtaken.is_set() and not around.behind.strip():
            await self._request_ahead(key, lines)
        if not overtaken.is_set():
            self._ring.around_answer(view.file, around, PREFIX_LINES, SUFFIX_LINES)

    async def _request_ahead(self, key: InfillKey, lines: list[str]) -> None:
        """Request what follows if the suggestion is accepted; also keep what follows its first line."""
        following = after(key, lines)
        if following not in self._cache:
            texts = await self._request(following, _indent(key.prompt))
            if any(text.strip() for text in texts):
                self._cache.put(following, ["\n".join(without_empty_end(text)) for text in texts])
        if len(lines) > 1:
            below = InfillKey(key.prefix + key.prompt + lines[0] + "\n", key.suffix, "")
            if below not in self._cache:
                self._cache.put(below, ["\n".join(lines[1:])])

    async def _request(self, key: InfillKey, indent: int) -> list[str]:
        """Return the different completions of one request."""
        body = {
            **self._body(key),
            "n_predict": PREDICT_TOKENS,
            "n_cmpl": ALTERNATIVES,
            "top_k": 40,
            "top_p": 0.99,
            "samplers": ["top_k", "top_p", "infill"],
            "t_max_predict_ms": PREDICT_MS,
            **({"n_indent": indent} if indent else {}),
        }
        return list(dict.fromkeys(await self._server.post("/infill", body)))

    def _body(self, key: InfillKey) -> dict[str, Any]:
        return {
            "id_slot": SLOT,
            "input_prefix": key.prefix,
            "input_suffix": key.suffix,
            "input_extra": [{"text": chunk.text, "filename": chunk.file} for chunk in self._ring.chunks],
            "prompt": key.prompt,
            "stream": False,
            "cache_prompt": True,
            "t_max_prompt_ms": PROMPT_MS,
            "seed": SEED,
        }

    async def _add_chunks(self) -> None:
        """Regularly, while nobody types: add a chunk to the ring, and let the server evaluate it at once."""
        while True:
            await asyncio.sleep(UPDATE_S)
            if time.monotonic() - self._asked_at >= QUIET_S and self._ring.add_queued():
                body = self._body(InfillKey("", "", ""))
                self._background(
                    self._server.post("/infill", {**body, "n_predict": 0, "samplers": [], "t_max_predict_ms": 1})
                )

    async def _saved(self, view: DocumentView) -> None:
        await asyncio.sleep(SAVE_DELAY_S)
        self._ring.around_cursor(view.file, CursorLines.of(view.text, view.cursor))

    def _background(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def key_of(around: CursorLines) -> InfillKey:
    """Return what a request at the cursor sends; the line's beginning is empty if it is only white space."""
    prefix = "\n".join(around.above(PREFIX_LINES)) + "\n"
    suffix = around.behind + "\n" + "\n".join(around.below(SUFFIX_LINES)) + "\n"
    return InfillKey(prefix, suffix, around.before if around.before.strip(" \t") else "")


def after(key: InfillKey, lines: list[str]) -> InfillKey:
    """Return the key of the request that follows if the suggested lines are accepted."""
    if len(lines) == 1:
        return InfillKey(key.prefix, key.suffix, key.prompt + lines[0])
    prefix = key.prefix + key.prompt + "\n".join(lines[:-1]) + "\n"
    above = prefix[:-1].split("\n")
    if len(above) > PREFIX_LINES:
        prefix = "\n".join(above[-PREFIX_LINES:]) + "\n"
    return InfillKey(prefix, key.suffix, lines[-1])


def without_empty_end(text: str) -> list[str]:
    """Return the lines of ``text`` without empty ones at the end."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def fitted(lines: list[str], behind: str) -> str:
    """Return the suggestion; if text follows the cursor on its line, only the first line, without that text."""
    if behind.strip():
        if lines[0].endswith(behind):
            return lines[0][: -len(behind)]
        if len(lines) > 1:
            return lines[0]
    return "\n".join(lines)


def without_indent(text: str, columns: int) -> str:
    """Return ``text`` without up to ``columns`` characters of white space at its start."""
    begin = 0
    while begin < min(columns, len(text)) and text[begin] in " \t":
        begin += 1
    return text[begin:]
