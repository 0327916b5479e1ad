"""An engine that is started by its first request, and ended when it was not used for a while.

For a model that is seldom asked and would fill memory that the user's other programs need, and with the setting
`unload_after_s` for any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from peft_core.errors import Unavailable
from peft_core.status_types import EngineState, EngineStatus
from peft_core.tasks import BackgroundTasks
from peft_daemon.engines.base import (
    Engine,
    GenerationChunk,
    GenerationRequest,
    PromptCachingEngine,
    TokenizingEngine,
)

IDLE_S = 600.0
"""How long it stays loaded after its last request."""

log = logging.getLogger("peft_daemon.engines")


def on_demand(engine: Engine, idle_s: float | None = None) -> OnDemandEngine:
    """Return the engine as one that is loaded only while it is used; it shows tokens if ``engine`` does.

    ``idle_s`` is how long it stays loaded after its last request, ``IDLE_S`` unless given.
    """
    idle_s = IDLE_S if idle_s is None else idle_s
    if isinstance(engine, TokenizingEngine):
        return OnDemandTokenizer(engine, engine, idle_s)
    return OnDemandEngine(engine, idle_s)


class OnDemandEngine:
    """Implements ``engines.base.Engine`` with another one, which it starts and ends."""

    def __init__(self, engine: Engine, idle_s: float) -> None:
        self._engine, self._idle_s = engine, idle_s
        self._users = 0
        """Requests under way."""
        self._closed = True
        self._switching = asyncio.Lock()
        """Held while the engine is started or ended."""
        self._timer: asyncio.TimerHandle | None = None
        self._ends = BackgroundTasks(log, "an unused engine could not be ended")

    @property
    def id(self) -> str:
        """Id of the engine inside."""
        return self._engine.id

    async def start(self) -> None:
        """Allow requests; nothing is loaded before the first."""
        self._closed = False

    async def ready(self) -> None:
        """Load the model and wait until requests are served; raises what the engine inside raises."""
        async with self._in_use() as engine:
            await engine.ready()

    async def stop(self) -> None:
        """Release all resources; requests under way fail as those of the engine inside do."""
        self._closed = True
        self._keep()
        await self._ends.end()
        await self._engine.stop()

    def status(self) -> EngineStatus:
        """Return the status of the engine inside; it is unloaded, not stopped, while the next request would load it."""
        status = self._engine.status()
        if status.state is EngineState.STOPPED and not self._closed:
            return msgspec.structs.replace(status, state=EngineState.UNLOADED)
        return status

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, tokenized literally."""
        async with self._in_use() as engine:
            return await engine.count_tokens(texts)

    async def unread(self, request: GenerationRequest) -> int:
        """Return how many tokens of the request's prompt would have to be read now; 0 where that is not known."""
        async with self._in_use() as engine:
            return await engine.unread(request) if isinstance(engine, PromptCachingEngine) else 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Yield the answer in chunks, as ``engines.base.Engine`` describes."""
        async with self._in_use() as engine, aclosing(engine.generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def idle(self) -> None:
        """Wait until no request is decoded; for tests and measurements."""
        await self._engine.idle()

    @asynccontextmanager
    async def _in_use(self) -> AsyncGenerator[Engine, None]:
        """Start the engine if it is not running, and keep it for the block."""
        self._users += 1
        self._keep()
        try:
            # Where the engine is being ended, its end comes first.
            async with self._switching:
                if self._closed:
                    raise Unavailable("the engine is stopped", fix="Start the daemon with `peft-daemon start`")
                await self._engine.start()
            yield self._engine
        finally:
            self._users -= 1
            if not self._users and not self._closed:
                self._keep()
                self._timer = asyncio.get_running_loop().call_later(
                    self._idle_s, lambda: self._ends.spawn(self._end_unused())
                )

    async def unload_unused(self) -> bool:
        """Unload it if no request uses it; return whether that was done."""
        async with self._switching:
            if self._users or self._engine.status().state is EngineState.STOPPED:
                return False
            await self._engine.stop()
            return True

    async def _end_unused(self) -> None:
        async with self._switching:
            if not self._users:
                log.info("%s was not used for %.0f s and is unloaded", self._engine.status().model, self._idle_s)
                await self._engine.stop()

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class OnDemandTokenizer(OnDemandEngine):
    """The same for an engine that shows how its model's tokenizer cuts a text."""

    def __init__(self, engine: Engine, tokenizer: TokenizingEngine, idle_s: float) -> None:
        super().__init__(engine, idle_s)
        self._tokenizer = tokenizer

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of ``text``; control tokens are recognised only when ``special``."""
        async with self._in_use():
            return await self._tokenizer.tokenize(text, special=special)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises InvalidInput for ids that the model does not have."""
        async with self._in_use():
            return await self._tokenizer.detokenize(tokens)
