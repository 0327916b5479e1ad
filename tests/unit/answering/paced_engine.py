"""A stand-in for a model whose pace a test sets: it says the next piece when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from peft_core.api_types import EngineState, EngineStatus, FinishReason, Timings
from peft_core.errors import EngineFailed
from peft_daemon.engines.base import Delta, Finish, GenerationRequest


class PacedEngine:
    """Answers each request with the pieces ``answer`` gives for its prompt's text; counts and closes them.

    ``go`` lets all running generations say what they have; until then they wait after ``at_once`` pieces.
    """

    id = "llamacpp"

    def __init__(self, answer: Callable[[str], Sequence[str]], *, at_once: int = 1000) -> None:
        self._answer, self._at_once = answer, at_once
        self.go = asyncio.Event()
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

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Say the pieces at the test's pace."""
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            text = "".join(each.text for each in request.prompt) + request.begins_with
            pieces = self._answer(text) if request.max_tokens else ()
            if not request.max_tokens and not self.go.is_set() and self._at_once == 0:
                await self.go.wait()
            if self.reading is not None:
                yield Delta("", (), self.reading)
                await self.go.wait()
            for number, piece in enumerate(pieces, start=1):
                if number > self._at_once:
                    await self.go.wait()
                if self.fails:
                    raise EngineFailed("the engine died")
                await asyncio.sleep(0)
                begin = request.begins_with if number == 1 else ""
                yield Delta(begin + piece, (), Timings(prompt_evaluated=3, decode_tokens=number))
            yield Finish(FinishReason.STOP, Timings(prompt_evaluated=3, decode_tokens=len(pieces)))
        finally:
            self.running -= 1
            await asyncio.sleep(0)
