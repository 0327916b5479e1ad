"""llama.vscode's policy: one request at a time, never cancelled; a cache; the next request ahead; a ring of chunks.

Re-created from completion.ts, llama-server.ts, extra-context.ts and configuration.ts of ggml-org/llama.vscode with its
default settings. docs/typing-benchmark.md says what was left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any

from peft_evaluation.typing.policies.base import Answer, Engine, Totals, View
from peft_evaluation.typing.policies.completion_cache import CompletionCache, Key
from peft_evaluation.typing.policies.lines import Around
from peft_evaluation.typing.policies.llama_server import LlamaServer
from peft_evaluation.typing.policies.repeating import repeats
from peft_evaluation.typing.policies.ring import QUIET_S, UPDATE_S, Ring
from peft_evaluation.typing.screen import Ghost
from peft_evaluation.typing.traces import Edit

PREFIX_LINES, SUFFIX_LINES = 256, 64
PREDICT_TOKENS = 128
PROMPT_MS, PREDICT_MS = 500, 2500
LONGEST_LINE_SUFFIX = 8
CACHE_ENTRIES = 250
POLL_S = 0.15
"""How often a request looks whether the one before has ended."""
SAVE_DELAY_S = 1.0
SEED = 0


class LlamaVscodeSession:
    """One editor session with the extension."""

    def __init__(self, engine: Engine) -> None:
        self.on_more: Callable[[], None] | None = None
        self._server = LlamaServer(engine)
        self._cache = CompletionCache(CACHE_ENTRIES)
        self._ring = Ring(Random(SEED))  # noqa: S311  (has to be repeatable, not secret)
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

    def opened(self, view: View) -> None:
        """A file that is shown is worth a chunk."""
        self._ring.around_cursor(view.file, Around.of(view.text, view.cursor))

    def shown(self, view: View, before: View) -> None:
        """So is the one that was left."""
        self._ring.around_cursor(before.file, Around.of(before.text, before.cursor))
        self._ring.around_cursor(view.file, Around.of(view.text, view.cursor))

    def changed(self, view: View, edit: Edit, before: View) -> None:
        """The request sends the text itself."""

    def moved(self, view: View) -> None:
        """It takes no notice."""

    def saved(self, view: View) -> None:
        """A saved file is worth a chunk, a second later."""
        self._background(self._saved(view))

    async def suggest(self, view: View) -> Answer:
        """Waits until the request before has ended; what it then begins goes on even if nobody waits any more."""
        while self._busy:  # noqa: ASYNC110  (the extension polls: what that costs is part of its policy)
            await asyncio.sleep(POLL_S)
        around = Around.of(view.text, view.cursor)
        if len(around.behind) > LONGEST_LINE_SUFFIX:
            return Answer(None, cached=True)
        self._asked_at = time.monotonic()
        key = key_of(around)
        if (known := self._cache.get(key)) is not None:
            return self._answer(view, around, known, key, cached=True)
        self._busy = True
        overtaken = asyncio.Event()
        try:
            return await asyncio.shield(self._background(self._ask(view, around, key, overtaken)))
        except asyncio.CancelledError:
            overtaken.set()
            raise

    async def totals(self) -> Totals:
        """The server's."""
        return await self._server.totals()

    async def _ask(self, view: View, around: Around, key: Key, overtaken: asyncio.Event) -> Answer:
        try:
            line = around.lines[around.line]
            text = await self._request(key, _indent(line))
            return self._answer(view, around, text, key, cached=False, goes_on=not overtaken.is_set())
        finally:
            self._busy = False

    def _answer(self, view: View, around: Around, text: str, key: Key, *, cached: bool, goes_on: bool = True) -> Answer:
        """What is shown of a text, which is kept; then, if it ``goes_on``, the next request begins ahead of its time.

        It does not where a keystroke has overtaken the request.
        """
        lines = without_empty_end(text)
        if repeats(lines, around):
            return Answer(None, cached)
        text = fitted(lines, around.behind)
        if not cached:
            self._cache.put(key, text)
        if goes_on:
            self._ring.around_answer(view.file, around, PREFIX_LINES, SUFFIX_LINES)
        if goes_on and not around.behind.strip():
            self._background(self._ahead(key, lines))
        # The indentation that is there already is not written once more.
        blank = len(around.before) if not around.before.strip() else 0
        return Answer(Ghost(view.cursor, view.cursor, without_indent(text, blank)), cached)

    async def _ahead(self, key: Key, lines: list[str]) -> None:
        """Ask what comes after the suggestion, as if it were accepted; keep what comes after its first line."""
        following = after(key, lines)
        if following not in self._cache:
            text = "\n".join(without_empty_end(await self._request(following, _indent(key.prompt))))
            if text.strip():
                self._cache.put(following, text)
        if len(lines) > 1:
            below = Key(key.prefix + key.prompt + lines[0] + "\n", key.suffix, "")
            if below not in self._cache:
                self._cache.put(below, "\n".join(lines[1:]))

    async def _request(self, key: Key, indent: int) -> str:
        body = {
            **self._body(key),
            "n_predict": PREDICT_TOKENS,
            "top_k": 40,
            "top_p": 0.99,
            "samplers": ["top_k", "top_p", "infill"],
            "t_max_predict_ms": PREDICT_MS,
            **({"n_indent": indent} if indent else {}),
        }
        return await self._server.post("/infill", body)

    def _body(self, key: Key) -> dict[str, Any]:
        return {
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
                body = self._body(Key("", "", ""))
                self._background(
                    self._server.post("/infill", {**body, "n_predict": 0, "samplers": [], "t_max_predict_ms": 1})
                )

    async def _saved(self, view: View) -> None:
        await asyncio.sleep(SAVE_DELAY_S)
        self._ring.around_cursor(view.file, Around.of(view.text, view.cursor))

    def _background(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def key_of(around: Around) -> Key:
    """What a request at the cursor sends; a line of white space alone is not sent as the line's beginning."""
    prefix = "\n".join(around.above(PREFIX_LINES)) + "\n"
    suffix = around.behind + "\n" + "\n".join(around.below(SUFFIX_LINES)) + "\n"
    return Key(prefix, suffix, around.before if around.before.strip(" \t") else "")


def after(key: Key, lines: list[str]) -> Key:
    """The request that follows when the suggested lines are accepted."""
    if len(lines) == 1:
        return Key(key.prefix, key.suffix, key.prompt + lines[0])
    prefix = key.prefix + key.prompt + "\n".join(lines[:-1]) + "\n"
    above = prefix[:-1].split("\n")
    if len(above) > PREFIX_LINES:
        prefix = "\n".join(above[-PREFIX_LINES:]) + "\n"
    return Key(prefix, key.suffix, lines[-1])


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
