"""The torch engine: transformers, peft and bitsandbytes in a supervised child process, which serves every PEFT method.

Only the child imports torch, never the daemon; the libraries come with the ``tune`` extra. One answer is generated at a
time, and other requests wait in the child. An adapter is loaded when a request names it and never affects other
requests. A fully fine-tuned model is not an adapter but a base of its own, and is not served.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec

from peft_core.child_process import STDERR_WAIT_S, ChildGone, ChildProcess
from peft_core.errors import EngineFailed, InvalidInput
from peft_core.status_types import TORCH
from peft_core.wire_errors import error_from_body
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, LoadChecks, default_threads
from peft_daemon.engines.heartbeat import Heartbeat
from peft_daemon.engines.supervisor import SupervisedEngine
from peft_daemon.engines.torch.messages import (
    CancelCommand,
    CardMemoryMessage,
    ChildCommand,
    ChildMessage,
    ChunkMessage,
    CountTokensCommand,
    ErrorMessage,
    GenerateCommand,
    LoadedAdaptersMessage,
    TokenCountsMessage,
    TorchChildConfig,
    TorchChildReady,
    decode_message,
    encode,
)
from peft_daemon.engines.waiting import WaitPolicy
from peft_daemon.models.content import side_files, weight_files

log = logging.getLogger("peft_daemon.engines")

CHILD_MODULE = f"{__package__}.child"
REQUIRED_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class TorchOptions:
    """The engine's configuration, taken from the settings."""

    model_id: str
    model_path: Path
    """A GGUF file, or a folder in transformers' layout."""
    precision: str = "auto"
    """See ``TorchChildConfig``."""
    context_tokens: int = 4096
    threads: int = 0
    wait_policy: WaitPolicy = "auto"
    batch_tokens: int = 16
    max_loaded_adapters: int = 8
    adapter_folders: tuple[Path, ...] = ()
    """Folders below which all adapters lie that requests name; they have to be there."""
    confined: bool = True
    """See ``TorchChildConfig``."""
    checks: LoadChecks | None = None
    """None loads files unchecked."""


def require_installed() -> None:
    """Raise InvalidInput if a library is missing; none is imported."""
    if missing := [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]:
        raise InvalidInput(
            "the torch engine is not installed",
            why=f"{' and '.join(missing)} cannot be found",
            fix="Type `pip install 'peft-daemon[tune]'`, or set `engine` to llamacpp",
        )


class TorchChild:
    """One child process and its requests under way."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self.retired = False
        self.adapters: list[str] = []
        self.card_bytes = 0
        """Memory of a graphics card, which the process's own does not include."""
        self.heartbeat = Heartbeat(partial(self.count_tokens, ()), process.stopped)
        self.idle = asyncio.Event()
        self.idle.set()
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Queue[ChildMessage | None]] = {}
        self._reader = asyncio.create_task(self._read())

    async def end(self) -> None:
        """Stop it now."""
        self.retired = True
        await self.process.stop()
        await asyncio.wait((self._reader,), timeout=STDERR_WAIT_S)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, taken literally; raises ChildGone."""
        _, answers = self._begin(lambda number: CountTokensCommand(number, list(texts)))
        match await answers.get():
            case TokenCountsMessage(counts=counts):
                return counts
            case ErrorMessage(error=error):
                raise error_from_body(error, EngineFailed)
            case _:
                raise ChildGone

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation; closing the generator stops it at the child's next step. Raises ChildGone."""
        number, answers = self._begin(lambda number: GenerateCommand(number, request))
        try:
            while True:
                match await answers.get():
                    case ChunkMessage(chunk=chunk):
                        yield chunk
                        if chunk.reason is not None:
                            return
                    case ErrorMessage(error=error):
                        raise error_from_body(error, EngineFailed)
                    case _:
                        raise ChildGone
        finally:
            if number in self._open:  # cancelled: it stays open until the child has stopped it
                with contextlib.suppress(ChildGone):
                    self.process.send(encode(CancelCommand(number)))

    def _begin(self, command: Callable[[int], ChildCommand]) -> tuple[int, asyncio.Queue[ChildMessage | None]]:
        """Send a command with a new number; return the number and the queue of its replies. Raises ChildGone."""
        if self._reader.done():
            raise ChildGone
        number = next(self._numbers)
        self.process.send(encode(command(number)))
        answers = self._open[number] = asyncio.Queue()
        self.idle.clear()
        return number, answers

    async def _read(self) -> None:
        """Distribute messages until the child is gone or sends a malformed one."""
        try:
            while True:
                answer = decode_message(await self.process.receive())
                if isinstance(answer, LoadedAdaptersMessage):
                    self.adapters = answer.digests
                    continue
                if isinstance(answer, CardMemoryMessage):
                    self.card_bytes = answer.bytes
                    continue
                self._open[answer.id].put_nowait(answer)
                if not isinstance(answer, ChunkMessage) or answer.chunk.reason is not None:
                    del self._open[answer.id]
                if not self._open:
                    self.idle.set()
        except ChildGone:
            pass
        except Exception:
            log.exception("the torch engine answered nonsense and is ended")
        finally:
            # Nothing reads its messages any more.
            self.process.kill()
        for answers in self._open.values():
            answers.put_nowait(None)
        self._open.clear()
        self.idle.set()


class TorchEngine(SupervisedEngine[TorchChild]):
    """Implements ``engines.base.Engine`` with torch in a child process."""

    id = TORCH
    kind: ClassVar[str] = "torch"
    start_limit_s: ClassVar[float] = 600.0

    def __init__(self, options: TorchOptions) -> None:
        super().__init__(model_id=options.model_id, context_tokens=options.context_tokens, checks=options.checks)
        self._options = options

    async def idle(self) -> None:
        """Wait until the child works on nothing."""
        if self._current is not None:
            await self._current.idle.wait()

    async def _spawn_first(self) -> TorchChild:
        options = self._options
        model = await self._file_to_load(options.model_path)
        linked = [each.resolve() for each in (*weight_files(model), *side_files(model)) if each.is_symlink()]
        config = TorchChildConfig(
            model=str(model),
            precision=options.precision,
            context_tokens=options.context_tokens,
            threads=options.threads or default_threads(),
            wait_policy=options.wait_policy,
            step_tokens=options.batch_tokens,
            max_loaded_adapters=options.max_loaded_adapters,
            reads=[str(each) for each in (*options.adapter_folders, *linked)],
            confined=options.confined,
        )
        async with self._starting(CHILD_MODULE, encode(config)) as process:
            try:
                msgspec.json.decode(await process.first_line(self.start_limit_s), type=TorchChildReady)
            except (ValueError, RecursionError) as error:
                raise EngineFailed("the engine answered nonsense", why=str(error)) from None
            child = TorchChild(process)
        self._children.add(child)
        return child

    @contextlib.asynccontextmanager
    async def _lease(self, request: GenerationRequest | None) -> AsyncGenerator[TorchChild, None]:
        adapter = request.adapter if request else None
        if adapter is not None and adapter.scale:
            adapter.require_present()
        while self._current is None:
            await self.ready()
        if adapter is not None and adapter.scale and adapter.digest not in self._current.adapters:
            await self._check(adapter)
            while self._current is None:
                await self.ready()
        yield self._current

    def _stream(self, child: TorchChild, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        return child.generate(request)

    async def _count(self, child: TorchChild, texts: Sequence[str]) -> list[int]:
        return await child.count_tokens(texts)

    @property
    def _confined(self) -> bool:
        return self._options.confined

    def _loaded(self, child: TorchChild) -> list[str]:
        return child.adapters

    def _card_bytes(self, child: TorchChild) -> int:
        return child.card_bytes
