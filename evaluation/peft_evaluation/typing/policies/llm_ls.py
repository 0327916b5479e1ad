"""llm-ls' policy in its VS Code extension: a pause, the whole prompt anew for each request, no cache.

Re-created from main.rs of huggingface/llm-ls, extension.ts of huggingface/llm-vscode and the default settings of
huggingface/llm.nvim. docs/typing-benchmark.md says what was left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto

import tree_sitter
import tree_sitter_python

from peft_evaluation.typing.policies.base import Answer, Engine, Totals, View
from peft_evaluation.typing.policies.llama_server import LlamaServer
from peft_evaluation.typing.screen import Ghost
from peft_evaluation.typing.traces import Edit

DELAY_S = 0.15
"""``llm.requestDelay``, and ``debounce_ms`` in Neovim."""
CONTEXT_TOKENS = 1024
NEW_TOKENS = 60
TEMPERATURE, TOP_P = 0.2, 0.95
PREFIX, SUFFIX, MIDDLE = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"
CLEARED = ("<|endoftext|>",)
SEED = 0


class Wanted(Enum):
    """How much is shown of an answer."""

    NOTHING = auto()
    LINE = auto()
    ALL = auto()


class LlmLsSession:
    """One editor session with the extension and its language server."""

    def __init__(self, engine: Engine) -> None:
        self.on_more: Callable[[], None] | None = None
        self._server = LlamaServer(engine)
        self._parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))

    async def start(self) -> None:
        """Start the server."""
        await self._server.start()

    async def stop(self) -> None:
        """End it."""
        await self._server.stop()

    def opened(self, view: View) -> None:
        """The request sends the text itself."""

    def shown(self, view: View, before: View) -> None:
        """The request sends the text itself."""

    def changed(self, view: View, edit: Edit, before: View) -> None:
        """The request sends the text itself."""

    def moved(self, view: View) -> None:
        """It takes no notice."""

    def saved(self, view: View) -> None:
        """It takes no notice."""

    async def suggest(self, view: View) -> Answer:
        """Waits, builds the prompt, asks; a keystroke meanwhile closes the connection, at which the server stops."""
        await asyncio.sleep(DELAY_S)
        wanted = self.wanted(view.text, view.cursor)
        if wanted is Wanted.NOTHING:
            return Answer(None, cached=True)
        body = {
            "prompt": await prompt(view.text, view.cursor, self._server.count),
            "n_predict": NEW_TOKENS,
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "seed": SEED,
        }
        text = await self._server.post("/completion", body)
        for token in CLEARED:
            text = text.replace(token, "")
        if wanted is Wanted.LINE:
            text = text.partition("\n")[0]
        return Answer(Ghost(view.cursor, view.cursor, text) if text else None, cached=False)

    async def totals(self) -> Totals:
        """The server's."""
        return await self._server.totals()

    def wanted(self, text: str, cursor: int) -> Wanted:
        """Several lines where the syntax tree has nothing at the cursor, else one line, and nothing before a word."""
        if not text:
            return Wanted.NOTHING
        root = self._parser.parse(text.encode()).root_node
        place = len(text[:cursor].encode())
        node = root.descendant_for_byte_range(place, min(place + 1, len(text.encode())))
        if node is not None:
            if node == root:
                return Wanted.ALL
            inner = _inner(text.encode()[node.start_byte : node.end_byte].decode(errors="replace"))
            if inner is None:
                return Wanted.LINE
            if not inner.strip():
                return Wanted.ALL
        following = text[cursor : cursor + 1] or "\n"
        return Wanted.LINE if following.isspace() else Wanted.NOTHING


async def prompt(text: str, cursor: int, count: Callable[[Sequence[str]], Awaitable[list[int]]]) -> str:
    """Lines by turns from above and below the cursor, as many as the context has room for, in FIM order."""
    begin = text.rfind("\n", 0, cursor) + 1
    above = [text[begin:cursor], *reversed(text[:begin].splitlines(keepends=True))][:CONTEXT_TOKENS]
    below = (text[cursor:].splitlines(keepends=True) or [""])[:CONTEXT_TOKENS]
    counts = await count([*above, *below])
    costs = {id(above): counts[: len(above)], id(below): counts[len(above) :]}
    room = CONTEXT_TOKENS - 3
    before: list[str] = []
    after: list[str] = []
    for number in range(max(len(above), len(below))):
        for lines, taken in ((above, before), (below, after)):
            if number >= len(lines):
                continue
            tokens = costs[id(lines)][number]
            if tokens > room:
                return _joined(before, after)
            room -= tokens
            taken.append(lines[number])
    return _joined(before, after)


def _joined(before: list[str], after: list[str]) -> str:
    return f"{PREFIX}{''.join(reversed(before))}{SUFFIX}{''.join(after)}{MIDDLE}"


def _inner(text: str) -> str | None:
    """A node's text without the characters that enclose it; None when nothing can be between them."""
    begin = 0 if text[:1].isspace() else 1
    end = len(text) - 1 if text[-1:].isspace() else len(text) - 2
    return text[begin:end] if begin < end else None
