"""What one daemon notes of its requests: counters in Prometheus' text format, and the last decisions.

The counters are numbers only: never a prompt, path or name. Decisions name documents, but have no text of them; they
are kept in memory.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Iterable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from peft_core.api_types import CompleteRequest, CompleteResponse, Timings
from peft_core.code.document import document_name
from peft_core.decisions import MAX_DECISIONS, Decider, RequestDecision
from peft_daemon.daemon_log import REQUEST_ID

LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 30, 60)


class Metrics:
    """One registry per daemon; nothing is shared between two of them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "peft_daemon_requests", "Generations by how they ended", ["route", "outcome"], registry=self._registry
        )
        self._latency = Histogram(
            "peft_daemon_latency_seconds",
            "Arrival to end",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._first_token = Histogram(
            "peft_daemon_first_token_seconds",
            "Engine start to first token",
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._queue = Histogram(
            "peft_daemon_queue_seconds", "Waiting for the engine", buckets=LATENCY_BUCKETS_S, registry=self._registry
        )
        self._prompt = Counter(
            "peft_daemon_prompt_tokens", "Prompt tokens, computed or reused", ["how"], registry=self._registry
        )
        self._decoded = Counter("peft_daemon_decoded_tokens", "Tokens generated", registry=self._registry)
        self._generations = Counter(
            "peft_daemon_generations", "Times the model was put to work, ahead of requests too", registry=self._registry
        )
        self._origins = Counter(
            "peft_daemon_completions", "Completions by where they came from", ["origin"], registry=self._registry
        )
        self._active = Gauge("peft_daemon_active_requests", "Being decoded now", registry=self._registry)
        self._queued = Gauge("peft_daemon_queued_requests", "Waiting now", registry=self._registry)
        self._memory = Gauge("peft_daemon_memory_bytes", "Resident, daemon and engine", registry=self._registry)
        self._tasks = Gauge("peft_daemon_tasks", "Of the daemon's event loop", registry=self._registry)
        self._threads = Gauge("peft_daemon_threads", "Of the daemon", registry=self._registry)
        self._descriptors = Gauge("peft_daemon_descriptors", "Files and connections it holds", registry=self._registry)
        self._restarts = Gauge("peft_daemon_engine_restarts", "Engine deaths so far", registry=self._registry)

    def finished(self, route: str, outcome: str, timings: Timings) -> None:
        """Count one request that ended."""
        self._requests.labels(route, outcome).inc()
        self._latency.labels(route).observe(timings.total_ms / 1000)
        self._queue.observe(timings.queue_ms / 1000)
        if timings.first_token_ms:
            self._first_token.observe(timings.first_token_ms / 1000)

    def generated(self, timings: Timings) -> None:
        """Count the work of one generation."""
        self._generations.inc()
        self._prompt.labels("evaluated").inc(timings.prompt_evaluated)
        self._prompt.labels("reused").inc(timings.prompt_reused)
        self._decoded.inc(timings.decode_tokens)

    def answered(self, origin: str) -> None:
        """Count one completion by where it came from."""
        self._origins.labels(origin).inc()

    def text(self, *, active: int, queued: int, memory_bytes: int, engine_restarts: int) -> bytes:
        """All of it, as Prometheus scrapes it, with the daemon's present state."""
        self._active.set(active)
        self._queued.set(queued)
        self._memory.set(memory_bytes)
        self._restarts.set(engine_restarts)
        self._tasks.set(len(asyncio.all_tasks()))
        process = psutil.Process()
        self._threads.set(process.num_threads())
        if sys.platform == "win32":
            self._descriptors.set(process.num_handles())
        else:
            self._descriptors.set(process.num_fds())
        return generate_latest(self._registry)


class DecisionLog:
    """The last decisions about requests, in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, RequestDecision] = {}
        self.counts: dict[str, int] = dict.fromkeys(Decider, 0)
        """How often each part decided, since the daemon started."""

    def answered(
        self,
        asked: CompleteRequest,
        answer: CompleteResponse,
        decider: Decider,
        detail: str = "",
        *,
        pause_ms: float = 0,
        doubt: float | None = None,
    ) -> None:
        """Note an answer, though it be empty."""
        self.add(
            RequestDecision(
                id=answer.id,
                at=time.time(),
                decider=decider,
                detail=detail,
                document=document_name(asked.path, asked.workspace),
                line=asked.line,
                column=_column(asked),
                task=answer.task.value,
                model=answer.model,
                adapter=answer.adapter.name if answer.adapter else "",
                characters=len(answer.text),
                confidence=answer.confidence,
                doubt=doubt,
                paused_ms=pause_ms,
                timings=answer.timings,
            )
        )

    def unanswered(self, asked: CompleteRequest, decider: Decider, detail: str) -> None:
        """Note a request that ended without an answer."""
        self.add(
            RequestDecision(
                id=REQUEST_ID.get() or uuid.uuid4().hex,
                at=time.time(),
                decider=decider,
                detail=detail,
                document=document_name(asked.path, asked.workspace),
                line=asked.line,
                column=_column(asked),
            )
        )

    def add(self, decision: RequestDecision) -> None:
        """Note a decision; it replaces an earlier one about the same answer."""
        if (before := self._kept.pop(decision.id, None)) is not None:
            self.counts[before.decider] -= 1
        self.counts[decision.decider] += 1
        self._kept[decision.id] = decision
        while len(self._kept) > MAX_DECISIONS:
            del self._kept[next(iter(self._kept))]

    def extend(self, decisions: Iterable[RequestDecision]) -> None:
        """Note what a language server decided."""
        for decision in decisions:
            self.add(decision)

    @property
    def all(self) -> list[RequestDecision]:
        """Those that are kept, the oldest first."""
        return list(self._kept.values())


def _column(asked: CompleteRequest) -> int:
    return len(asked.prefix) - asked.prefix.rfind("\n")
