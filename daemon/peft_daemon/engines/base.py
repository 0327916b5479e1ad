"""The interface every engine implements: a prompt, an adapter and a budget in; a stream of tokens with timings out.

An engine holds one base model. It knows nothing of documents, prompt formats or post-processing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from peft_core.api_types import EngineStatus, FinishReason, SamplingParams, Timings
from peft_core.errors import EngineFailed
from peft_daemon.adapters.manifest import AdapterLease


class Segment(NamedTuple):
    """A piece of a prompt.

    ``special`` pieces hold the model's control tokens (``<|fim_prefix|>``); all other text is tokenized literally,
    so that a file that contains such a string cannot steer the model.
    """

    text: str
    special: bool = False


Prompt = tuple[Segment, ...]


@dataclass(frozen=True)
class LoadChecks:
    """What an engine asks each time before it loads a file. The checks read files, so they are called in a thread."""

    model: Callable[[], Path]
    """The model's file to load now; raises UnusableFile."""
    adapter: Callable[[AdapterLease], None]
    """Raises UnusableFile when the adapter's files are not those that were imported."""
    suspect: Callable[[str], None]
    """Told in the event loop why an answer looks as if the model's file were damaged."""


@dataclass(frozen=True)
class GenerationRequest:
    """All an engine needs for one generation."""

    prompt: Prompt
    max_tokens: int
    """0: read the prompt into the cache and write nothing; the only item is a ``Finish``."""
    adapter: AdapterLease | None = None
    stop: tuple[str, ...] = ()
    time_budget_ms: int | None = None
    """Counted from the moment the engine starts on the request, not from its time in the queue."""
    sampling: SamplingParams = SamplingParams()
    logprobs: int = 0
    """How many alternatives to report per token; 0 for none."""
    begins_with: str = ""
    """What the answer has to begin with: the end of the prompt's text, left out of it because it belongs to the next
    token. An engine that can constrain decoding does; the answer of another may begin otherwise."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its log-probability, with the most likely alternatives (the token itself may be among them)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Delta:
    """New text, with the timings so far (a consumer that stops early has no ``Finish``).

    ``text`` may be empty: the engine tells how much of the prompt it has read, or is reading, so that what is
    interrupted is counted too. ``logprobs`` is filled when the request asked for it.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    timings: Timings = Timings()

    @property
    def silent(self) -> bool:
        """Whether it tells of reading only."""
        return not self.text and not self.logprobs


@dataclass(frozen=True)
class Finish:
    """Always the last item of a generation that was not cancelled."""

    reason: FinishReason
    timings: Timings


@runtime_checkable
class PromptCachingEngine(Protocol):
    """An engine that computes of a prompt only what it does not hold already."""

    async def unread(self, request: GenerationRequest) -> int:
        """Tokens of the request's prompt it would have to compute now."""


@runtime_checkable
class ReloadableEngine(Protocol):
    """An engine that can give up what it has loaded."""

    async def reload(self, error: EngineFailed) -> None:
        """Load the model anew because of ``error``, which requests get until it is loaded."""


class GarbledOutput(EngineFailed):
    """The engine wrote what no intact model makes it write."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "the engine answered nonsense",
            why=why,
            fix="The model's file may be damaged and is being checked; `peft-daemon doctor` says what it finds",
        )


class Engine(Protocol):
    """One base model that generates text.

    ``generate`` yields ``Delta`` items and one final ``Finish``. Closing the generator (or cancelling the task that
    iterates it) stops decoding at once. Raises EngineFailed when the engine dies in the middle and Unavailable when
    it is not ready within its start-up limit.
    """

    @property
    def id(self) -> str:
        """``LLAMACPP``, ``TORCH``, …: decides which form of an adapter it is given."""

    async def start(self) -> None:
        """Begin loading; returns before the model is ready."""

    async def ready(self) -> None:
        """Wait until requests can be served; raises EngineFailed if that will not happen."""

    async def stop(self) -> None:
        """Release everything; safe to call twice."""

    def status(self) -> EngineStatus:
        """A snapshot, without waiting."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text when tokenized literally (no special tokens)."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta | Finish, None]:
        """Generate; see the class."""

    async def idle(self) -> None:
        """Wait until no request is being decoded (tests and measurements use it)."""


# How many threads compute, and how they wait for each other; the same for llama.cpp and torch.

WaitPolicy = Literal["active", "passive"]
"""How threads wait for each other, in OpenMP's words; docs/performance.md has what was measured."""
PASSIVE_SPIN_COUNT = 3000
"""Turns for which a thread that waits passively watches for the others before it sleeps. libgomp's own 300,000 last
about 1 ms: once something else runs on a core, each of a token's hundreds of meetings waits for the scheduler."""


def default_threads() -> int:
    """The physical cores this process may use: hyper-threads only get in each other's way when decoding."""
    import psutil  # noqa: PLC0415  (children of an engine are told their number, and start sooner without)

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def set_wait_policy(policy: WaitPolicy) -> None:
    """Decide how OpenMP's threads wait for each other in this process; what the environment says already is kept.

    Has an effect only before llama.cpp or torch is loaded, and only where libgomp runs their threads.
    """
    if policy == "passive" and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(PASSIVE_SPIN_COUNT))
