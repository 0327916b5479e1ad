"""Engines that say what a test tells them to, piece by piece, at once or at the pace that the test sets.

What real models answer is tested with recorded and with real answers; see ``test_recorded_answers`` and ``e2e``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from peft_core.api_types import FinishReason, Timings
from peft_core.errors import EngineFailed
from peft_core.status_types import EngineState, EngineStatus
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, TokenLogprob


class ScriptedEngine:
    """Yields ``pieces`` and then finishes with ``reason``; records the request and how far it was read.

    Like an engine that constrains decoding, it begins with what the request says the answer begins with.
    """

    def __init__(
        self, pieces: Sequence[str], reason: FinishReason = FinishReason.STOP, *, constrains: bool = True
    ) -> None:
        self._pieces, self._reason, self._constrains = tuple(pieces), reason, constrains
        self.request: GenerationRequest | None = None
        self.given = 0
        """Pieces that were taken."""
        self.closed = False
        """Whether the generator ended, in whatever way."""

    async def start(self) -> None:
        """Nothing to start."""

    async def ready(self) -> None:
        """Always ready."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def status(self) -> EngineStatus:
        """Always ready."""
        return EngineStatus(kind="scripted", state=EngineState.READY, model="scripted", context_tokens=4096)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """A token has three characters."""
        return [-(-len(text) // 3) for text in texts]

    async def idle(self) -> None:
        """Never busy between tests."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Say the pieces."""
        self.request = request
        try:
            for number, piece in enumerate(self._pieces, start=1):
                begin = request.begins_with if number == 1 and self._constrains else ""
                self.given = number
                yield GenerationChunk(begin + piece, timings=Timings(prompt_tokens=7, decode_tokens=number))
            yield GenerationChunk(
                reason=self._reason, timings=Timings(prompt_tokens=7, decode_tokens=len(self._pieces), total_ms=1.0)
            )
        finally:
            self.closed = True


Piece = str | tuple[str, float]
"""A token's text, or also its log-probability."""


class PacedEngine:
    """Answers each request with the pieces ``answer`` gives for its prompt's text; counts and closes them.

    ``go`` lets all running generations say what they have; until then they wait after ``at_once`` pieces.
    """

    id = "llamacpp"

    def __init__(self, answer: Callable[[str], Sequence[Piece]], *, at_once: int = 1000) -> None:
        self._answer, self._at_once = answer, at_once
        self.go = asyncio.Event()
        self.waiting = asyncio.Event()
        """Set when a generation waits for ``go``; a test clears it to wait for the next."""
        self.begun = asyncio.Event()
        """Set when a generation begins; a test clears it to wait for the next."""
        self.ended = asyncio.Event()
        """Set when a generation ends; a test clears it to wait for the next."""
        self.requests: list[GenerationRequest] = []
        self.running = 0
        self.most_running = 0
        self.fails = False
        self.warm = True
        self.reading: Timings | None = None
        """How far each generation has read its prompt; it reads on when ``go`` is set."""

    async def start(self) -> None:
        """Nothing to start."""

    async def ready(self) -> None:
        """Always ready."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def status(self) -> EngineStatus:
        """Always ready."""
        return EngineStatus(kind="paced", state=EngineState.READY, model="paced", context_tokens=4096)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """A token has three characters."""
        return [-(-len(text) // 3) for text in texts]

    async def unread(self, request: GenerationRequest) -> int:
        """As many as the test says are cold, of what the prompt has."""
        length = sum(len(each.text) for each in request.prompt) // 3
        return 0 if self.warm else length

    async def idle(self) -> None:
        """Never busy between tests."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Say the pieces at the test's pace."""
        self.requests.append(request)
        self.begun.set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            asked = "".join(each.text for each in request.prompt) + request.begins_with
            pieces = self._answer(asked) if request.max_tokens else ()
            if not request.max_tokens and self._at_once == 0:
                await self._until_told()
            if self.reading is not None:
                yield GenerationChunk(timings=self.reading)
                await self._until_told()
            for number, piece in enumerate(pieces, start=1):
                if number > self._at_once:
                    await self._until_told()
                if self.fails:
                    raise EngineFailed("the engine died")
                await asyncio.sleep(0)
                begin = request.begins_with if number == 1 else ""
                text, logprob = (piece, None) if isinstance(piece, str) else piece
                told = () if logprob is None or not request.confidence else (TokenLogprob(text, logprob),)
                timings = Timings(prompt_evaluated=3, decode_tokens=number)
                yield GenerationChunk(begin + text, told, timings)
            yield GenerationChunk(
                reason=FinishReason.STOP, timings=Timings(prompt_evaluated=3, decode_tokens=len(pieces))
            )
        finally:
            self.running -= 1
            self.ended.set()
            await asyncio.sleep(0)

    async def _until_told(self) -> None:
        self.waiting.set()
        await self.go.wait()
