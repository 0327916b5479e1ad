"""The llama.cpp engine: a supervised child process that is replaced when another adapter is needed.

llama.cpp loads adapters only when it starts. So a request for an adapter that is not loaded starts a second child
with it (the weights are memory-mapped and shared). New requests go to that child once it serves, and the old child ends
with its last request: no request is lost, and each is decoded with exactly the adapter that it leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import msgspec

from peft_core.child_process import ChildGone, ChildProcess
from peft_core.errors import EngineFailed, PeftDaemonError, Unavailable, UnusableFile
from peft_core.status_types import LLAMACPP, EngineStatus
from peft_daemon.adapters.manifest import AdapterLease
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, LoadChecks, default_threads
from peft_daemon.engines.heartbeat import Heartbeat
from peft_daemon.engines.llamacpp.child import (
    CHILD_MODULE,
    KV_LAYOUT,
    FlashAttention,
    LlamaCppChildConfig,
    LlamaCppChildReady,
)
from peft_daemon.engines.llamacpp.program import can_be_fenced
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore, fingerprint
from peft_daemon.engines.llamacpp.server import STEPS_PER_LONG_STEP, LlamaServerClient
from peft_daemon.engines.supervisor import SupervisedEngine, start_failure
from peft_daemon.engines.waiting import WaitPolicy

log = logging.getLogger("peft_daemon.engines")

SAVE_STATES_LIMIT_S = 2.0
"""Longest time that the end of a child waits for its slots to be saved."""
IDLE_POLL_S = 0.01
"""Interval of polls while waiting for an idle server; more of them would slow the server down."""


@dataclass(frozen=True)
class SavedStatesOptions:
    """Where KV states are saved, and how many bytes they may take."""

    folder: Path
    limit_bytes: int
    base_sha256: str


@dataclass(frozen=True)
class LlamaCppOptions:
    """The engine's configuration, taken from the settings."""

    model_id: str
    model_path: Path
    socket_folder: Path
    """Folder for the children's sockets: only this user may enter it, and its path is short enough for sockets."""
    context_tokens: int = 4096
    slots: int = 1
    threads: int = 0
    wait_policy: WaitPolicy = "auto"
    batch_tokens: int = 16
    max_loaded_adapters: int = 8
    adapters: tuple[AdapterLease, ...] = ()
    """Adapters to load at the start, as they are likely to be requested."""
    speculation: bool = False
    """See ``ChildConfig``."""
    program: Path | None = None
    """The ``llama-server`` to run; None: the wheel's."""
    wheel_steps_in: bool = False
    """Whether the wheel's server runs where ``program`` cannot start."""
    program_problem: str = ""
    """What the status says of the choice of ``program``; empty for nothing."""
    gpu_layers: int = -1
    """See ``ChildConfig``."""
    flash_attention: FlashAttention = "auto"
    states: SavedStatesOptions | None = None
    """None saves no KV states."""
    confined: bool = True
    """See ``ChildConfig``."""
    checks: LoadChecks | None = None
    """None loads files unchecked."""

    @property
    def fenced(self) -> bool:
        """Whether the child gives up what ``confined`` says: with a program, only where that works without."""
        return self.confined and (self.program is None or can_be_fenced(self.program, self.gpu_layers))


class LlamaCppChild:
    """One child with a fixed set of adapters, and the number of its requests under way."""

    def __init__(
        self,
        process: ChildProcess,
        server: LlamaServerClient,
        adapters: tuple[AdapterLease, ...],
        host: str,
        *,
        speculates: bool,
    ) -> None:
        self.process, self.server, self.adapters, self.speculates = process, server, adapters, speculates
        self._host = host
        self.heartbeat = Heartbeat(server.ping, process.stopped)
        self.in_flight = 0
        self.retired = False
        self.idle = asyncio.Event()
        self.idle.set()

    def position(self, digest: str) -> int | None:
        return next((i for i, a in enumerate(self.adapters) if a.digest == digest), None)

    def serves(self, adapter: AdapterLease | None, *, plain: bool) -> bool:
        """Whether it has ``adapter`` loaded, and does not speculate where ``plain`` is required."""
        return (adapter is None or self.position(adapter.digest) is not None) and not (plain and self.speculates)

    def acquire(self) -> None:
        self.in_flight += 1
        self.idle.clear()

    def release(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    async def save_states(self) -> None:
        """Save the content of its slots, for its successor or the next start."""
        saving = asyncio.create_task(self.server.save_states())
        # An order that is under way cannot be cancelled, and a child that hangs never answers it.
        await asyncio.wait((saving,), timeout=SAVE_STATES_LIMIT_S)
        if saving.done():
            saving.result()

    async def end(self) -> None:
        """Stop the child now."""
        self.retired = True
        try:
            if not self.heartbeat.verdict and not self.process.stopped():
                await self.save_states()
        finally:
            try:
                await self.process.stop()
            finally:
                _remove_socket(self._host)
                await self.server.close()


class LlamaCppEngine(SupervisedEngine[LlamaCppChild]):
    """Implements ``engines.base.Engine`` with llama.cpp in a child process."""

    id = LLAMACPP
    kind: ClassVar[str] = "llama.cpp"
    start_limit_s: ClassVar[float] = 120.0

    def __init__(self, options: LlamaCppOptions) -> None:
        super().__init__(model_id=options.model_id, context_tokens=options.context_tokens, checks=options.checks)
        self._options = options
        self._recent: dict[str, AdapterLease] = {}
        self._states: SavedStateStore | None = None
        self._speculation = options.speculation

    async def idle(self) -> None:
        """Wait until no slot is decoding."""
        current = self._current
        while current is not None and await current.server.busy():  # noqa: ASYNC110  (another process: only asking tells)
            await asyncio.sleep(IDLE_POLL_S)

    async def reload(self, error: EngineFailed) -> None:
        """Load the model again; saved states are deleted, as the weights that computed them are in doubt."""
        await super().reload(error)
        if self._states is not None:
            await asyncio.to_thread(self._states.clear)

    async def _spawn_first(self) -> LlamaCppChild:
        if self._options.states is not None and self._states is None:
            self._states = await asyncio.to_thread(_open_states, self._options, self._options.states)
        likely = await self._usable(self._options.adapters)
        try:
            first = await self._spawn(likely[: self._options.max_loaded_adapters])
        except Exception as error:
            if not likely or (isinstance(error, EngineFailed) and error.is_certain):
                raise
            # One of them may be the cause; the request for that one reports it.
            return await self._spawn(())
        for adapter in first.adapters:
            self._touch(adapter)
        return first

    def _stream(self, child: LlamaCppChild, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        return child.server.generate(request, adapters=_applied(child, request.adapter))

    async def _count(self, child: LlamaCppChild, texts: Sequence[str]) -> list[int]:
        return [len(await child.server.tokenize(text)) if text else 0 for text in texts]

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of ``text``; control tokens are recognised only when ``special``."""
        return await self._ask(lambda child: child.server.tokenize(text, special=special))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises InvalidInput for ids that the model does not have."""
        return await self._ask(lambda child: child.server.detokenize(tokens))

    async def unread(self, request: GenerationRequest) -> int:
        """Return how many tokens of the request's prompt neither a slot nor a saved state holds."""
        async with self._lease(request) as child:
            try:
                with child.heartbeat.working():
                    unread = await child.server.unread(request.prompt, _applied(child, request.adapter))
            except ChildGone:
                return 0  # the generation reports it
            child.heartbeat.beat()
            return unread

    def _loaded(self, child: LlamaCppChild) -> list[str]:
        return [adapter.digest for adapter in child.adapters]

    @contextlib.asynccontextmanager
    async def _lease(self, request: GenerationRequest | None) -> AsyncGenerator[LlamaCppChild, None]:
        """Return a context with a child that can serve ``request``, kept alive for the block."""
        child = await self._acquire(request)
        try:
            yield child
        finally:
            child.release()

    async def _acquire(self, request: GenerationRequest | None) -> LlamaCppChild:
        adapter = request.adapter if request and request.adapter and request.adapter.scale else None
        if request and request.logprobs:
            # llama.cpp has no probabilities of drafted tokens. Such requests are rare: speculation is
            # switched off until the next start.
            self._speculation = False
        plain = bool(request and request.logprobs)
        while True:
            await self.ready()
            current = self._current
            if current is None:
                continue
            if current.serves(adapter, plain=plain):
                current.acquire()  # no await since the check: the child cannot have changed
                if adapter is not None:
                    self._touch(adapter)
                return current
            # Loading goes on when this request is cancelled: the next one needs the adapter as well.
            await asyncio.shield(self._background.spawn(self._replace(adapter, plain=plain)))

    def _touch(self, adapter: AdapterLease) -> None:
        self._recent.pop(adapter.digest, None)
        self._recent[adapter.digest] = adapter

    async def _replace(self, adapter: AdapterLease | None, *, plain: bool) -> None:
        """Replace the serving child by one that has ``adapter`` too; the least recently used one is left out."""
        async with self._swap:
            old = self._current
            if old is None or old.serves(adapter, plain=plain):
                return
            loaded = {a.digest for a in old.adapters}
            new = [] if adapter is None or adapter.digest in loaded else [adapter]
            for each in new:
                each.require_present()
                await self._check(each)
            keep = await self._usable([a for d, a in self._recent.items() if d in loaded])
            try:
                fresh = await self._spawn_with((*keep, *new)[-self._options.max_loaded_adapters :])
            except Unavailable:
                raise
            except Exception as unexpected:
                error = start_failure(unexpected)
                for each in new:
                    each.require_present()
                if not new or error.is_certain or not isinstance(unexpected, EngineFailed):
                    raise error from None
                raise EngineFailed(
                    f"adapter {new[0].digest[:12]} could not be loaded",
                    why=error.why,
                    fix="Remove it with `peft-daemon adapters remove`, or use `base`",
                ) from None
            for each in new:
                self._touch(each)
            with contextlib.suppress(Exception):
                await old.save_states()
            self._take_over(fresh)
            self._background.spawn(self._drain(old))
        await self._announce()

    async def _spawn_with(self, adapters: tuple[AdapterLease, ...]) -> LlamaCppChild:
        """Start a child with these adapters, once more if it died while it loaded them.

        An adapter is at fault only where the second child dies as well: the system may have ended the first.
        """
        try:
            return await self._spawn(adapters)
        except UnusableFile:
            raise
        except EngineFailed as error:
            for each in adapters:
                each.require_present()
            log.warning("an engine is started once more: %s", error.cause)
            return await self._spawn(adapters)

    async def _drain(self, old: LlamaCppChild) -> None:
        """End a replaced child once its last request has finished."""
        old.retired = True
        await old.idle.wait()
        await self._dispose(old)

    async def _usable(self, adapters: Sequence[AdapterLease]) -> tuple[AdapterLease, ...]:
        """Return those of ``adapters`` that may be loaded; log the others."""
        usable = []
        for adapter in adapters:
            try:
                await self._check(adapter)
            except UnusableFile as error:
                log.warning("left out: %s", error)
                continue
            if adapter.path.is_file():
                usable.append(adapter)
        return tuple(usable)

    @property
    def _confined(self) -> bool:
        return self._options.fenced

    def status(self) -> EngineStatus:
        """Return the status with the program that runs, and what kept another one from running."""
        options = self._options
        return msgspec.structs.replace(
            super().status(), program=str(options.program or ""), program_problem=options.program_problem
        )

    async def _spawn(self, adapters: tuple[AdapterLease, ...]) -> LlamaCppChild:
        """Start a child; where a program that was chosen by measurement cannot start, the wheel's server does."""
        chosen = self._options
        try:
            return await self._spawn_as(chosen, adapters)
        except EngineFailed as error:
            if chosen.program is None or not chosen.wheel_steps_in or error.is_certain:
                raise
            # Adapters and model may be the cause as well: then the wheel cannot start either.
            child = await self._spawn_as(replace(chosen, program=None, states=None), adapters)
            problem = f"{chosen.program} cannot start, so the package's own llama.cpp runs: {error.why or error.what}"
            log.warning("%s", problem)
            # Saved states are of the other program.
            self._options = replace(self._options, program=None, states=None, program_problem=problem)
            self._states = None
            return child

    async def _spawn_as(self, options: LlamaCppOptions, adapters: tuple[AdapterLease, ...]) -> LlamaCppChild:
        path = await self._file_to_load(self._options.model_path)
        if path != self._options.model_path:
            # Saved states are of the other file.
            self._options, self._states = replace(self._options, model_path=path, states=None), None
            options = replace(options, model_path=path, states=None)
        key = secrets.token_urlsafe(32)
        host = _private_host(options.socket_folder)
        config = LlamaCppChildConfig(
            model=str(options.model_path),
            adapters=[str(a.path) for a in adapters],
            host=host,
            api_key=key,
            context_tokens=options.context_tokens,
            slots=options.slots,
            threads=options.threads or default_threads(),
            wait_policy=options.wait_policy,
            batch_tokens=options.batch_tokens * STEPS_PER_LONG_STEP,
            speculation=self._speculation,
            states_folder=str(self._states.folder) if self._states is not None and options.states is not None else "",
            program=str(options.program or ""),
            gpu_layers=options.gpu_layers,
            flash_attention=options.flash_attention,
            confined=options.fenced,
        )
        try:
            async with self._starting(CHILD_MODULE, msgspec.json.encode(config)) as process:
                ready = msgspec.json.decode(await process.first_line(self.start_limit_s), type=LlamaCppChildReady)
                server = LlamaServerClient(
                    ready.address,
                    key,
                    slots=options.slots,
                    context_tokens=options.context_tokens,
                    step_tokens=options.batch_tokens,
                    states=self._states if options.states is not None else None,
                    digests=[adapter.digest for adapter in adapters],
                )
                child = LlamaCppChild(process, server, adapters, host, speculates=config.speculation)
        except BaseException:
            _remove_socket(host)
            raise
        self._children.add(child)
        return child


def _applied(child: LlamaCppChild, adapter: AdapterLease | None) -> tuple[tuple[int, float], ...]:
    """Return the scale of every loaded adapter, 0 for all but the request's own.

    The list is always complete: llama.cpp takes an empty one for "as at the start" and then does not notice that the
    KV cache belongs to other weights.
    """
    wanted = None if adapter is None or adapter.scale == 0.0 else child.position(adapter.digest)
    scale = 0.0 if adapter is None else adapter.scale
    return tuple((i, scale if i == wanted else 0.0) for i in range(len(child.adapters)))


def _open_states(options: LlamaCppOptions, states: SavedStatesOptions) -> SavedStateStore | None:
    """Open the saved states that fit; None where the folder cannot be used, which is logged."""
    try:
        info = options.model_path.stat()
        return SavedStateStore(
            states.folder,
            limit_bytes=states.limit_bytes,
            fingerprint=fingerprint(
                *(states.base_sha256, info.st_size, info.st_mtime_ns),
                *(_build(options.program), KV_LAYOUT, options.context_tokens, "secrets masked"),
            ),
        )
    except (OSError, PeftDaemonError) as error:
        log.warning("KV states are not saved: %s", error)
        return None


def _build(program: Path | None) -> str:
    """Return what tells one build of llama.cpp from another; raises OSError where there is no such program."""
    if program is None:
        return version("xllamacpp")
    info = program.stat()
    return f"{program} {info.st_size} {info.st_mtime_ns}"


def _private_host(folder: Path) -> str:
    """Return the address of a new child: a socket in ``folder``, or loopback where there are no unix sockets."""
    if sys.platform == "win32":
        return "127.0.0.1"
    return str(folder / f"e-{secrets.token_hex(4)}.sock")


def _remove_socket(host: str) -> None:
    if host.endswith(".sock"):
        Path(host).unlink(missing_ok=True)
