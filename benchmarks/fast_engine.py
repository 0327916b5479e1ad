"""First suggestions while somebody types, with an engine of a given speed that is played: it reads, writes and waits.

    python benchmarks/fast_engine.py [--reading 850] [--writing 200] [--right 0.6] [--traces 3]

Recorded editing is replayed in real time against the service. Its engine takes as long for each token as it is told and
keeps prompts in two slots, as llama.cpp does. It knows the right text: in a share of the lines it writes that, in the
others something else, so that the next key needs a new answer. Prints one line of JSON: how long a keystroke waits at
that speed, and how often a short prompt was read in place of the full one. What a model would write is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

from peft_core.api_types import CompleteRequest, CompleteResponse, FinishReason, Task, Timings
from peft_core.settings import Settings
from peft_core.status_types import LLAMACPP, EngineState, EngineStatus
from peft_daemon.adapters.registry import AdapterRegistry
from peft_daemon.completion.model_instance import ModelInstance
from peft_daemon.completion.service import CompletionService
from peft_daemon.context.repository import RepositoryContext
from peft_daemon.engines.base import EngineSpeed, GenerationChunk, GenerationRequest
from peft_daemon.metrics import Metrics
from peft_daemon.models import catalogue
from peft_evaluation.typing_benchmark.trace_maker import FULL, make_traces
from peft_evaluation.typing_benchmark.traces import REQUESTING_ACTIONS, Trace, TraceAction, TraceEvent

CHARACTERS_PER_TOKEN = 5
"""Of Python code in the default model's vocabulary, whose tokens hold runs of spaces."""
EDITOR_PAUSE_S = 0.05
"""VS Code's own, before it asks for a suggestion."""
SHOW_AFTER_MS = 300
FULL_TOKENS = 600
"""Of a prompt that shows as much of a long file as its budget allows."""
SLOTS = 2
STEP_TOKENS = 16


def tokens_of(text: str) -> list[str]:
    """Cut a text into pieces that stand for tokens."""
    return [text[at : at + CHARACTERS_PER_TOKEN] for at in range(0, len(text), CHARACTERS_PER_TOKEN)]


def shared(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the common beginning."""
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


class PlayedEngine:
    """Implements ``engines.base.Engine`` by waiting; ``answer`` is what it writes next."""

    id = LLAMACPP

    def __init__(self, speed: EngineSpeed) -> None:
        self._speed = speed
        self._slots: list[list[str]] = [[] for _ in range(SLOTS)]
        self.answer = ""
        self.document_tokens = 0
        self.written = self.short = 0
        """Requests that wrote something, and those of them that showed little of a long document."""

    async def start(self) -> None:
        """Nothing to start."""

    async def ready(self) -> None:
        """Always ready."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def idle(self) -> None:
        """Nothing to wait for."""

    def status(self) -> EngineStatus:
        """Always ready."""
        return EngineStatus(kind="played", state=EngineState.READY, model="played", context_tokens=4096)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """As ``tokens_of`` cuts."""
        return [len(tokens_of(text)) for text in texts]

    async def unread(self, request: GenerationRequest) -> int:
        """What no slot holds."""
        tokens = self._prompt(request)
        return len(tokens) - max(shared(slot, tokens) for slot in self._slots)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """Read what is new, then write."""
        tokens, answer = self._prompt(request), tokens_of(request.begins_with + self.answer)[: request.max_tokens]
        if request.max_tokens:
            self.written += 1
            self.short += len(tokens) < min(self.document_tokens, FULL_TOKENS) / 2
        slot = max(self._slots, key=lambda each: shared(each, tokens))
        known = shared(slot, tokens)
        if 2 * known < min(len(slot), len(tokens)):
            slot = self._slots[0]
            known = shared(slot, tokens)
        self._slots.remove(slot)
        self._slots.append(slot)
        del slot[known:]
        began = time.perf_counter()

        def timings(written: int = 0, decode_ms: float = 0.0) -> Timings:
            return Timings(
                prompt_tokens=len(tokens),
                prompt_evaluated=len(slot) - known,
                prompt_reused=known,
                prompt_ms=1000 * (len(slot) - known) / self._speed.reading,
                first_token_ms=1000 * (time.perf_counter() - began),
                decode_tokens=written,
                decode_ms=decode_ms,
            )

        step = request.step_tokens or STEP_TOKENS
        while len(slot) < len(tokens):
            new = tokens[len(slot) : len(slot) + step]
            await asyncio.sleep(len(new) / self._speed.reading)
            slot += new
            yield GenerationChunk(timings=timings())
        for written, piece in enumerate(answer, start=1):
            await asyncio.sleep(1 / self._speed.writing)
            yield GenerationChunk(piece, timings=timings(written, 1000 * written / self._speed.writing))
        yield GenerationChunk(reason=FinishReason.STOP, timings=timings(len(answer)))

    @staticmethod
    def _prompt(request: GenerationRequest) -> list[str]:
        # Each segment by itself, so that what is typed changes only the end.
        return [token for segment in request.prompt for token in tokens_of(segment.text)]


class Typist:
    """Replays one trace and notes how long each counted key waited for a suggestion."""

    def __init__(self, service: CompletionService, engine: PlayedEngine, right: float) -> None:
        self._service, self._engine, self._right = service, engine, right
        self.waits: list[float | None] = []
        """Seconds by key; None: none was shown before the next edit."""
        self._shown = ""
        self._asking: asyncio.Task[None] | None = None

    async def replay(self, trace: Trace) -> None:
        """Do what the person did, at the same pace."""
        texts = {file.name: file.before for file in trace.files}
        for event in trace.events:
            await asyncio.sleep(event.wait_s)
            if event.edit is not None:
                texts[event.file] = event.edit.applied(texts[event.file])
            self._happened(event, texts[event.file])
        await self._cancel()

    def _happened(self, event: TraceEvent, text: str) -> None:
        typed = event.edit.text if event.edit and event.kind is TraceAction.KEY else ""
        self._shown = self._shown[len(typed) :] if typed and self._shown.startswith(typed) else ""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if event.counts:
            self.waits.append(0.0 if self._shown else None)
        if event.kind in REQUESTING_ACTIONS:
            self._asking = asyncio.create_task(self._ask(event, text, len(self.waits) - 1))

    async def _ask(self, event: TraceEvent, text: str, number: int) -> None:
        began = time.perf_counter()
        await asyncio.sleep(EDITOR_PAUSE_S)
        truth = event.truth or ""
        # By the line's number, not by chance: a line is understood or it is not.
        self._engine.answer = truth if (event.place * 7919) % 100 < 100 * self._right else f"other({event.place})\n"
        self._engine.document_tokens = len(tokens_of(text))
        request = CompleteRequest(
            prefix=text[: event.cursor],
            suffix=text[event.cursor :],
            path=event.file,
            language="python",
            document=event.file,
            automatic=True,
            show_after_ms=SHOW_AFTER_MS,
        )
        async for part in self._service.complete(request):
            if isinstance(part, CompleteResponse) and part.text and not self._shown:
                self._shown = part.text
                if event.counts and self.waits[number] is None:
                    self.waits[number] = time.perf_counter() - began

    async def _cancel(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking


async def measure(speed: EngineSpeed, right: float, traces: Sequence[Trace]) -> dict[str, object]:
    """Replay the traces; returns the figures."""
    entry = catalogue.entries()[0]
    settings = Settings(slots=SLOTS)
    waits: list[float | None] = []
    short = written = 0
    with tempfile.TemporaryDirectory() as folder:
        for trace in traces:
            engine = PlayedEngine(speed)
            registry, metrics = AdapterRegistry(Path(folder) / "adapters"), Metrics()
            model = ModelInstance(settings, entry, engine, registry, metrics.generated, slots=SLOTS, known_speed=speed)
            service = CompletionService(
                settings, dict.fromkeys(Task, model), registry, RepositoryContext(lambda _path: 0), metrics
            )
            typist = Typist(service, engine, right)
            await typist.replay(trace)
            await service.close()
            waits += typist.waits
            written, short = written + engine.written, short + engine.short
    asked = [each for each in waits if each != 0.0]
    seen = [float("inf") if each is None else each for each in waits]
    return {
        "reading": speed.reading,
        "writing": speed.writing,
        "right": right,
        "keys": len(waits),
        "p50_ms": round(1000 * statistics.median(seen)),
        "within_100_300_1000_ms": [round(sum(each <= s for each in seen) / len(seen), 3) for s in (0.1, 0.3, 1.0)],
        "p50_ms_of_keys_with_nothing_on_the_screen": _ms(asked),
        "generations": written,
        "of_short_prompts": short,
    }


def _ms(waits: Sequence[float | None]) -> int | None:
    median = statistics.median(float("inf") if each is None else each for each in waits)
    return None if median == float("inf") else round(1000 * median)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reading", type=float, default=850, help="tokens per second; two slow cores read 85")
    parser.add_argument("--writing", type=float, default=200, help="tokens per second; two slow cores write 20")
    parser.add_argument("--right", type=float, default=0.6, help="share of lines whose text it knows")
    parser.add_argument("--traces", type=int, default=3)
    asked = parser.parse_args()
    traces = make_traces(replace(FULL, traces=asked.traces), 0)
    print(json.dumps(asyncio.run(measure(EngineSpeed(asked.reading, asked.writing), asked.right, traces))))


if __name__ == "__main__":
    main()
