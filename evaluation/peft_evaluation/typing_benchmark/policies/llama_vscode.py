"""llama.vscode's policy: one request at a time, never cancelled; a cache; the next request ahead; a ring of chunks.

Re-created from completion.ts, llama-server.ts, extra-context.ts and package.json of ggml-org/llama.vscode (0.0.63,
3938fb3) with its default settings. docs/typing-benchmark.md says what was left out.
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
"""The defaults of package.json; those of configuration.ts are overwritten by them."""
ALTERNATIVES = 3
"""Completions of one request (``n_cmpl``)."""
SLOT = 0
LONGEST_LINE_SUFFIX = 8
CACHE_ENTRIES = 250
POLL_S = 0.15
"""How often a request looks whether the one before has ended."""
SAVE_DELAY_S = 1.0
SEED = 0


class LlamaVscodeSession:
    """One editor session with the extension."""

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
        self._background(self._take_in_chunks())

    async def stop(self) -> None:
        """End it, with what is under way."""
        for task in self._tasks:
            task.cancel()
        await self._server.stop()

    def opened(self, view: DocumentView) -> None:
        """A file that is shown is worth a chunk."""
        self._ring.around_cursor(view.file, CursorLines.of(view.text, view.cursor))

    def shown(self, view: DocumentView, before: DocumentView) -> None:
        """So is the one that was left."""
        self._ring.around_cursor(before.file, CursorLines.of(before.text, before.cursor))
        self._ring.around_cursor(view.file, CursorLines.of(view.text, view.cursor))

    def changed(self, view: DocumentView, edit: TraceEdit, before: DocumentView) -> None:
        """The request sends the text itself."""

    def moved(self, view: DocumentView) -> None:
        """It takes no notice."""

    def saved(self, view: DocumentView) -> None:
        """A saved file is worth a chunk, a second later."""
        self._background(self._saved(view))

    async def suggest(self, view: DocumentView) -> PolicyAnswer:
        """Return the first of the alternatives. Waits until the request before has ended.

        A request that has begun goes on when it is cancelled: its answer is kept in the cache.
        """
        while self._busy:  # noqa: ASYNC110  (the extension polls: what that costs is part of its policy)
            await asyncio.sleep(POLL_S)
        self._asked_at = time.monotonic()
        around = CursorLines.of(view.text, view.cursor)
        if len(around.behind) > LONGEST_LINE_SUFFIX:
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
        """The server's."""
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
        """Choose what is shown of the alternatives, keep them, and begin what follows in the background."""
        alternatives = [lines for text in texts if not is_discarded(lines := without_empty_end(text), around)]
        if not alternatives:
            return PolicyAnswer(None, cached)
        fitting = [fitted(lines, around.behind) for lines in alternatives]
        if not cached:
            self._cache.put(key, fitting)
        self._background(self._follow_up(view, around, key, alternatives[0], overtaken))
        # The indentation that is there already is not written once more.
        blank = len(around.before) if not around.before.strip() else 0
        return PolicyAnswer(GhostText(view.cursor, view.cursor, without_indent(fitting[0], blank)), cached)

    async def _follow_up(
        self, view: DocumentView, around: CursorLines, key: InfillKey, lines: list[str], overtaken: asyncio.Event
    ) -> None:
        """Ask what comes after the suggestion and pick chunks, unless a keystroke has overtaken the request."""
        if not overtaken.is_set() and not around.behind.strip():
            await self._ahead(key, lines)
        if not overtaken.is_set():
            self._ring.around_answer(view.file, around, PREFIX_LINES, SUFFIX_LINES)

    async def _ahead(self, key: InfillKey, lines: list[str]) -> None:
        """Ask what comes after the suggestion, as if it were accepted; keep what comes after its first line."""
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

    async def _take_in_chunks(self) -> None:
        """Now and then, while nobody types: one more chunk, which the server reads at once."""
        while True:
            await asyncio.sleep(UPDATE_S)
            if time.monotonic() - self._asked_at >= QUIET_S and self._ring.take_in():
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
    """What a request at the cursor sends; a line of white space alone is not sent as the line's beginning."""
    prefix = "\n".join(around.above(PREFIX_LINES)) + "\n"
    suffix = around.behind + "\n" + "\n".join(around.below(SUFFIX_LINES)) + "\n"
    return InfillKey(prefix, suffix, around.before if around.before.strip(" \t") else "")


def after(key: InfillKey, lines: list[str]) -> InfillKey:
    """The request that follows when the suggested lines are accepted."""
    if len(lines) == 1:
        return InfillKey(key.prefix, key.suffix, key.prompt + lines[0])
    prefix = key.prefix + key.prompt + "\n".join(lines[:-1]) + "\n"
    above = prefix[:-1].split("\n")
    if len(above) > PREFIX_LINES:
        prefix = "\n".join(above[-PREFIX_LINES:]) + "\n"
    return InfillKey(prefix, key.suffix, lines[-1])


def without_empty_end(text: str) -> list[str]:
    """Its lines; empty ones at the end are left out."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def fitted(lines: list[str], behind: str) -> str:
    """Before more text on the cursor's line: one line, and not what stands there already."""
    if behind.strip():
        if lines[0].endswith(behind):
            return lines[0][: -len(behind)]
        if len(lines) > 1:
            return lines[0]
    return "\n".join(lines)


def without_indent(text: str, columns: int) -> str:
    """Without so much of the white space it begins with."""
    begin = 0
    while begin < min(columns, len(text)) and text[begin] in " \t":
        begin += 1
    return text[begin:]
