"""The interface of engines: a request with prompt, adapter and limits in, a stream of text with timings out.

An engine holds one base model. It knows nothing of documents, prompt formats or post-processing. The functions at the
end choose how many threads compute and how they wait for each other, the same for all engines.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from peft_core.api_types import FinishReason, SamplingParams, Timings
from peft_core.errors import EngineFailed, PeftDaemonError
from peft_core.status_types import EngineStatus
from peft_daemon.adapters.manifest import AdapterLease, Manifest


class Segment(NamedTuple):
    """A piece of a prompt.

    A ``special`` piece is one of the model's control tokens (``<|fim_prefix|>``). Other text is tokenized literally, so
    that a file that contains such a string cannot steer the model.
    """

    text: str
    special: bool = False


Prompt = tuple[Segment, ...]


@dataclass(frozen=True)
class LoadChecks:
    """Functions that an engine calls before it loads a file, and when its answers look damaged."""

    model: Callable[[], Path]
    """Return the model's file to load now; raises UnusableFile. Called in a thread."""
    adapter: Callable[[AdapterLease], None]
    """Raise UnusableFile when the adapter's files changed since the import. Called in a thread."""
    suspect: Callable[[str], None]
    """Take the reason why an answer looks as if the model's file were damaged. Called in the event loop."""
    room: Callable[[bool], Awaitable[None]] | None = None
    """Make room in memory for a process, true for one beside another that has the weights; raises MemoryShortage."""


@dataclass(frozen=True)
class GenerationRequest:
    """All an engine needs for one generation."""

    prompt: Prompt
    max_tokens: int
    """0: read the prompt into the cache and write nothing."""
    adapter: AdapterLease | None = None
    stop: tuple[str, ...] = ()
    time_budget_ms: int | None = None
    """Counted from the moment the engine starts on the request, not from its time in the queue."""
    sampling: SamplingParams = SamplingParams()
    logprobs: int = 0
    """How many alternatives to report per token; 0 for none."""
    confidence: bool = False
    """Report the log-probabilities of the tokens as far as that costs nothing: those guessed ahead have none."""
    begins_with: str = ""
    """What the answer has to begin with: the end of the prompt's text, left out of it because it belongs to the next
    token. An engine that can constrain decoding does; the answer of another may begin otherwise."""
    step_tokens: int = 0
    """Prompt tokens that are read between two moments at which the request can be cancelled; 0: as the engine does."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its log-probability, with the most likely alternatives (the token itself may be among them)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class GenerationChunk:
    """A piece of a streamed answer.

    Chunks without text are sent while the prompt is read, and one at the end. Each has the timings so far, because a
    consumer that stops early does not get the last one, and interrupted reading counts as work.
    """

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Filled when the request asked for them; without ``logprobs`` tokens may be missing."""
    timings: Timings = Timings()
    reason: FinishReason | None = None
    """Why the generation ended; None in every chunk but the last."""
    model: str = ""
    """Name of the model that wrote it, where that is not the engine's own."""

    @property
    def logprob(self) -> float | None:
        """The log-probability of its text; None where the engine does not say."""
        return sum(each.logprob for each in self.logprobs) if self.logprobs else None

    @property
    def silent(self) -> bool:
        """Whether it only reports how far the prompt has been read."""
        return not self.text and not self.logprobs and self.reason is None


@runtime_checkable
class PromptCachingEngine(Protocol):
    """An engine that keeps prompts and reads only the new part of the next one."""

    async def unread(self, request: GenerationRequest) -> int:
        """Return how many tokens of the request's prompt it would have to read now."""


@runtime_checkable
class TokenizingEngine(Protocol):
    """An engine that shows how its model's tokenizer cuts a text."""

    async def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return the token ids of ``text``; control tokens are recognised only when ``special``."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises InvalidInput for ids that the model does not have."""


@runtime_checkable
class ReloadableEngine(Protocol):
    """An engine that can load its model again."""

    async def reload(self, error: EngineFailed) -> None:
        """Load the model again; until then requests fail with ``error``."""


@runtime_checkable
class RemoteAdapters(Protocol):
    """An engine that loads no adapters but has some under names of its own."""

    def serves(self, manifest: Manifest) -> bool:
        """Whether it has this adapter."""

    def missing(self, manifest: Manifest) -> PeftDaemonError:
        """Return the error for a request that names an adapter which it does not have."""


class GarbledOutput(EngineFailed):
    """The engine wrote output that no intact model produces."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "the engine answered nonsense",
            why=why,
            fix="The model's file may be damaged and is being checked; `peft-daemon doctor` says what it finds",
        )


class Engine(Protocol):
    """One base model that generates text.

    The promises are tested for all engines by ``tests/integration/engines/test_engine_contract.py``.
    """

    @property
    def id(self) -> str:
        """``LLAMACPP`` or ``TORCH``: decides which form of an adapter the engine gets, or the one that steps in."""

    async def start(self) -> None:
        """Begin to load the model; returns before it is ready."""

    async def ready(self) -> None:
        """Wait until requests are served; raises EngineFailed if loading fails, Unavailable if it takes too long."""

    async def stop(self) -> None:
        """Release all resources; safe to call twice."""

    def status(self) -> EngineStatus:
        """Return the engine's status, without waiting."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, tokenized literally (no control tokens)."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Yield the answer in chunks; only the last one has a ``reason``, and it has no text.

        Closing the generator, or cancelling the task that iterates it, stops decoding at once. Raises EngineFailed when
        the engine dies in the middle, InvalidInput for a prompt that does not fit, or an adapter that cannot be served.
        """

    async def idle(self) -> None:
        """Wait until no request is decoded; for tests and measurements."""


class EngineSpeed(msgspec.Struct, frozen=True):
    """Tokens per second; 0 where nothing was measured."""

    reading: float = 0.0
    """Of prompts that are not cached."""
    writing: float = 0.0


def default_threads() -> int:
    """Return the number of physical cores this process may use: hyper-threads slow decoding down."""
    import psutil  # noqa: PLC0415  (children of an engine are told their number, and start sooner without)

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))
