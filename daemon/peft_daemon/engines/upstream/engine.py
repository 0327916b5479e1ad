"""The upstream engine: a server elsewhere writes; when it does not answer in time, the local model does.

The local engine is started when it is first needed. After a failure requests go to it at once, and the server is
probed in the background until it answers again, so only one request waits for a server that is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field, replace

from peft_core.errors import EngineFailed, InvalidInput, PeftDaemonError, Unavailable
from peft_core.status_types import LLAMACPP, UPSTREAM, EngineState, EngineStatus, UpstreamStatus
from peft_core.tasks import BackgroundTasks
from peft_daemon.adapters.manifest import AdapterLease, Manifest
from peft_daemon.engines.base import Engine, GenerationChunk, GenerationRequest
from peft_daemon.engines.upstream.failures import (
    MAX_QUOTED_CHARACTERS,
    AdapterRefused,
    UpstreamAddress,
    UpstreamFailed,
)
from peft_daemon.engines.upstream.server import ANSWER_S, ServerFacts, UpstreamServer

LOADABLE_METHODS = frozenset({"lora", "rslora"})
"""Methods whose adapters vLLM and SGLang load."""
PROBE_PAUSES_S = (1.0, 3.0, 10.0, 30.0)
"""Pauses before the first, second, … probe of a server that failed; the last one repeats."""

PROBE_INTERVAL_S = 60.0
"""A request that comes later after the last probe has the server probed once more, without waiting for it."""

log = logging.getLogger("peft_daemon.engines")


@dataclass(frozen=True)
class UpstreamOptions:
    """The engine's configuration, taken from the settings."""

    address: UpstreamAddress
    model_id: str
    """Id of the local model, whose prompt formats are used."""
    kind: str = "auto"
    model: str = ""
    context_tokens: int = 4096
    wait_s: float = 2.0
    """Longest wait for the first token before the local model answers."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """The server's model for each adapter that it has, by the adapter's name here."""
    folder_there: Callable[[str], str] | None = None
    """Return the PEFT folder of the adapter with a digest, as the server sees it; None: no adapter is loaded there."""


class UpstreamEngine:
    """Implements ``engines.base.Engine`` with a server that the daemon does not own.

    ``local`` answers when the server does not; None has failures of the server reported.
    """

    id = LLAMACPP
    """The form of adapters that the local engine needs; the server has its own."""

    def __init__(self, options: UpstreamOptions, local: Engine | None = None) -> None:
        self._options, self._local = options, local
        self._server = UpstreamServer(
            options.address,
            kind=options.kind,
            model=options.model,
            context_tokens=options.context_tokens,
            answer_s=max(ANSWER_S, options.wait_s),
        )
        self._facts: ServerFacts | None = None
        self._state = EngineState.STOPPED
        self._failure: UpstreamFailed | None = None
        """Why the server is not asked now; None while it is."""
        self._failures_in_a_row = 0
        self._loading = asyncio.Lock()
        self._loaded: set[str] = set()
        """Digests of the adapters that were loaded there since the last probe ..."""
        self._refused: dict[str, AdapterRefused] = {}
        """... and of those that it did not load."""
        self._local_started = False
        self._answered = self._answered_locally = 0
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._probed_at = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._background = BackgroundTasks(
            log, "probing the upstream server failed", PeftDaemonError, context=Context()
        )

    async def start(self) -> None:
        """Begin to probe the server; returns at once."""
        if self._state is EngineState.STOPPED:
            self._state = EngineState.STARTING
            self._start_probing(0.0)

    async def ready(self) -> None:
        """Wait until the server was probed; where it failed, until the local engine is ready."""
        if await self._usable() is None:
            await (await self._fallback(self._failure)).ready()

    async def stop(self) -> None:
        """End probing, and the local engine."""
        self._state = EngineState.STOPPED
        await self._background.end()
        self._server.close()
        if self._local is not None and self._local_started:
            await self._local.stop()
        await self._announce()

    async def idle(self) -> None:
        """Wait until no request of this engine is under way; the server may work for others."""
        await self._idle.wait()
        if self._local is not None and self._local_started:
            await self._local.idle()

    def status(self) -> EngineStatus:
        """Return where answers come from now, and the last error of the server."""
        local = self._local.status() if self._local is not None and self._local_started else None
        facts, failure = self._facts, self._failure
        trouble = failure or next(iter(self._refused.values()), None)
        state = self._state
        if local is not None and (failure is not None or state is EngineState.STARTING):
            state = local.state
        elif failure is not None and self._local is None and state is EngineState.READY:
            state = EngineState.FAILED
        return EngineStatus(
            kind=UPSTREAM,
            state=state,
            model=self._options.model_id,
            pid=local.pid if local else None,
            restarts=local.restarts if local else 0,
            memory_bytes=local.memory_bytes if local else 0,
            context_tokens=self._options.context_tokens,
            adapters=local.adapters if local else [],
            last_error=trouble.cause if trouble else "",
            fix=trouble.fix if trouble else "",
            withheld=local.withheld if local else [],
            responding=failure is None or local is None or local.responding,
            upstream=UpstreamStatus(
                url=self._options.address.url,
                kind=facts.protocol.kind if facts else self._options.kind,
                version=facts.version if facts else "",
                model=facts.model if facts else self._options.model,
                answers=failure is None and facts is not None,
                answered=self._answered,
                answered_locally=self._answered_locally,
            ),
        )

    def serves(self, manifest: Manifest) -> bool:
        """Whether the server has this adapter."""
        return manifest.name in self._options.adapters or (
            self._options.folder_there is not None
            # A server applies an adapter as it is: it knows no scale, and no other kind.
            and manifest.scale == 1.0
            and manifest.method in LOADABLE_METHODS
        )

    def missing(self, manifest: Manifest) -> InvalidInput:
        """Return the error for a request that names an adapter which the server does not have."""
        return no_such_adapter(manifest.name)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, tokenized literally."""
        if (facts := await self._usable()) is not None:
            try:
                async with asyncio.timeout(self._options.wait_s if self._local is not None else None):
                    return await self._server.count_tokens(facts, texts)
            except TimeoutError:
                self._failed(_too_slow(self._options))
            except UpstreamFailed as error:
                self._failed(error)
        return await (await self._fallback(self._failure)).count_tokens(texts)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation as ``engines.base.Engine`` describes; the local model takes over before any text."""
        self._under_way += 1
        self._idle.clear()
        arrived = time.perf_counter()
        try:
            facts = await self._usable()
            if facts is not None:
                began = False
                try:
                    async with aclosing(self._from_server(facts, request)) as chunks:
                        async for chunk in chunks:
                            if not began and not chunk.silent:
                                # A consumer that has enough closes the stream before its end.
                                began, self._failures_in_a_row = True, 0
                                self._answered += bool(request.max_tokens)
                            yield chunk
                    return
                except AdapterRefused:
                    if self._local is None:
                        raise
                except UpstreamFailed as error:
                    self._failed(error)
                    if began or self._local is None:
                        raise _while_answering(error) if began else error from None
            local = await self._fallback(self._failure)
            self._answered_locally += bool(request.max_tokens)
            async with aclosing(local.generate(_in_what_is_left(request, arrived))) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _from_server(
        self, facts: ServerFacts, request: GenerationRequest
    ) -> AsyncGenerator[GenerationChunk, None]:
        """Stream the server's answer; raises UpstreamFailed, also when its first token does not come in time."""
        model = await self._model_for(facts, request.adapter)
        wait_s = self._options.wait_s if self._local is not None and request.max_tokens else None
        async with aclosing(self._server.generate(facts, request, model=model)) as chunks:
            give_up_at = None if wait_s is None else time.perf_counter() + wait_s
            while True:
                try:
                    async with asyncio.timeout(None if give_up_at is None else give_up_at - time.perf_counter()):
                        chunk = await anext(chunks, None)
                except TimeoutError:
                    raise _too_slow(self._options) from None
                if chunk is None:
                    return
                if not chunk.silent:
                    give_up_at = None
                yield replace(chunk, model=facts.model[:MAX_QUOTED_CHARACTERS])

    async def _model_for(self, facts: ServerFacts, adapter: AdapterLease | None) -> str:
        """Return the server's model for a request, after loading the adapter there where that was not done yet.

        Raises InvalidInput where the server has no such adapter, AdapterRefused where it does not load it.
        """
        if adapter is None or not adapter.scale:
            return facts.model
        if (model := self._options.adapters.get(adapter.name)) is not None:
            return model
        if self._options.folder_there is None:
            raise no_such_adapter(adapter.name or adapter.digest[:12])
        if adapter.scale != 1.0:
            raise InvalidInput(
                "the upstream server knows no scale of an adapter", fix="Leave `scale` out, or set `engine` to llamacpp"
            )
        name = f"{adapter.name}-{adapter.digest[:12]}"
        async with self._loading:
            if (refusal := self._refused.get(adapter.digest)) is not None:
                raise refusal
            if adapter.digest not in self._loaded:
                try:
                    await self._server.load_adapter(facts, name, self._options.folder_there(adapter.digest))
                except AdapterRefused as error:
                    log.warning("%s", error.line)
                    self._refused[adapter.digest] = error
                    raise
                self._loaded.add(adapter.digest)
        return facts.protocol.adapter_model(facts.model, name)

    async def _usable(self) -> ServerFacts | None:
        """Return what is known of the server, or None while it is not asked; raises Unavailable when stopped.

        What is known grows old: another model may be served at the same address.
        """
        if self._state is EngineState.STARTING:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._local is None else self._options.wait_s), self._changed:
                    await self._changed.wait_for(lambda: self._state is not EngineState.STARTING)
        if self._state is EngineState.STOPPED:
            raise Unavailable("the engine is stopped", fix="Start the daemon with `peft-daemon start`")
        if self._failure is not None or self._facts is None:
            return None
        if time.monotonic() > self._probed_at + PROBE_INTERVAL_S:
            self._probed_at = time.monotonic()
            self._start_probing(0.0)
        return self._facts

    async def _fallback(self, failure: UpstreamFailed | None) -> Engine:
        """Return the local engine, started; raises ``failure`` where there is none."""
        if self._local is None:
            raise failure or UpstreamFailed("the upstream server is not probed yet")
        if not self._local_started:
            self._local_started = True
            await self._local.start()
        return self._local

    def _failed(self, error: UpstreamFailed) -> None:
        """Stop asking the server until a probe finds that it answers."""
        if self._failure is not None or self._state is EngineState.STOPPED:
            return
        log.warning("%s", error.line)
        self._failure = error
        pause = PROBE_PAUSES_S[min(self._failures_in_a_row, len(PROBE_PAUSES_S) - 1)]
        self._failures_in_a_row += 1
        self._start_probing(pause)

    def _start_probing(self, pause_s: float) -> None:
        """Probe the server after a pause, unless that goes on already."""
        if self._probing is None or self._probing.done():
            self._probing = self._background.spawn(self._probe_until_it_answers(pause_s))

    async def _probe_until_it_answers(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                facts = await self._server.probe(self._facts)
                if self._failure is not None or facts != self._facts:
                    self._loaded.clear()
                    self._refused.clear()
                self._facts, self._failure, self._probed_at = facts, None, time.monotonic()
            except UpstreamFailed as error:
                if self._state is EngineState.STARTING:
                    log.warning("%s", error.line)
                self._failure = error
                pause_s = PROBE_PAUSES_S[min(self._failures_in_a_row, len(PROBE_PAUSES_S) - 1)]
                self._failures_in_a_row += 1
            self._state = EngineState.READY
            await self._announce()
            if self._failure is None:
                return

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def no_such_adapter(name: str) -> InvalidInput:
    """Return the error of a request that names an adapter which the server does not have."""
    return InvalidInput(
        f"adapter '{name}' is not on the upstream server",
        fix="Add it to `upstream_adapters` as NAME=MODEL, or ask for `base`",
    )


def _in_what_is_left(request: GenerationRequest, arrived: float) -> GenerationRequest:
    """Return the request with the time budget that it has left since it arrived."""
    if request.time_budget_ms is None:
        return request
    left_ms = request.time_budget_ms - 1000 * (time.perf_counter() - arrived)
    return replace(request, time_budget_ms=max(1, int(left_ms)))


def _too_slow(options: UpstreamOptions) -> UpstreamFailed:
    return UpstreamFailed(
        f"{options.address.host} wrote nothing within {options.wait_s:g} s",
        fix="Set `upstream_wait_ms` higher if it always takes so long; `peft-daemon upstream check` measures it",
    )


def _while_answering(error: UpstreamFailed) -> EngineFailed:
    return EngineFailed(
        "the upstream server failed while it worked on this request", why=error.line, fix="Send the request again"
    )
