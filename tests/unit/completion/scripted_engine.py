"""A stand-in for a model in tests of order and of stopping: it says what it is told to, piece by piece.

What real models answer is tested with recorded and with real answers; see ``test_recorded_answers`` and ``e2e``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from peft_core.api_types import EngineState, EngineStatus, FinishReason, Timings
from peft_daemon.engines.base import Delta, Finish, GenerationRequest


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

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Say the pieces."""
        self.request = request
        try:
            for number, piece in enumerate(self._pieces, start=1):
                begin = request.begins_with if number == 1 and self._constrains else ""
                self.given = number
                yield Delta(begin + piece, (), Timings(prompt_tokens=7, decode_tokens=number))
            yield Finish(self._reason, Timings(prompt_tokens=7, decode_tokens=len(self._pieces), total_ms=1.0))
        finally:
            self.closed = True
