"""A llama.cpp server that the re-created policies send their requests to, and what it has spent.

It has the settings that llama.vscode's README recommends for a CPU: ``llama-server -ub 1024 -b 1024 --ctx-size 0
--cache-reuse 256``; all else is the server's default, four slots over one KV cache among it. Two deviations: the
context is 8,192 tokens instead of the model's 32,768, which no request here comes near, and threads wait passively, as
ours do by default, so that a busy machine slows all policies alike.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from peft_core.child_process import ChildProcess
from peft_core.errors import EngineFailed
from peft_daemon.engines.base import default_threads
from peft_daemon.engines.llamacpp.child import CHILD_MODULE, LlamaCppChildReady, PlainServerConfig
from peft_evaluation.typing_benchmark.policies.base import BenchModel, CpuMeter, ResourceUsage

BATCH_TOKENS = 1024
CONTEXT_TOKENS = 8192
CACHE_REUSE_TOKENS = 256
SLOTS = 4
START_S = 120.0
LOOK_S = 2.0


class RivalServer:
    """One child, from ``start`` to ``stop``."""

    def __init__(self, engine: BenchModel) -> None:
        self._engine = engine
        self._process: ChildProcess | None = None
        self._http: httpx.AsyncClient | None = None
        self._spending = CpuMeter(self._pids)
        self._looking: asyncio.Task[None] | None = None
        self._requests = 0
        self._reused = 0

    async def start(self) -> None:
        """Start the child; raises EngineFailed when it cannot load the model."""
        key = secrets.token_urlsafe(32)
        threads = self._engine.threads or default_threads()
        config = PlainServerConfig(
            model=str(self._engine.model_path),
            api_key=key,
            context_tokens=CONTEXT_TOKENS,
            slots=SLOTS,
            threads=threads,
            batch_tokens=BATCH_TOKENS,
            cache_reuse_tokens=CACHE_REUSE_TOKENS,
        )
        self._process = await ChildProcess.spawn(CHILD_MODULE, msgspec.json.encode(config))
        ready = msgspec.json.decode(await self._process.first_line(START_S), type=LlamaCppChildReady)
        self._http = httpx.AsyncClient(
            base_url=ready.address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10.0, read=None),
            # One that the server closed while it was unused would fail; a new one costs less than a millisecond.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End the child."""
        if self._looking is not None:
            self._looking.cancel()
        if self._http is not None:
            await self._http.aclose()
        if self._process is not None:
            await self._process.stop(grace_s=1.0)

    async def post(self, path: str, body: Mapping[str, Any]) -> list[str]:
        """Send one request that is not streamed and return its completions (several with ``n_cmpl``).

        Raises EngineFailed for any status but 200. Cancelling it closes the connection, at which the server stops.
        """
        self._requests += 1
        found = msgspec.json.decode(await self._call("POST", path, body))
        completions = found if isinstance(found, list) else [found]
        self._reused += sum(each.get("timings", {}).get("cache_n", 0) for each in completions)
        return [each.get("content", "") for each in completions]

    async def totals(self) -> ResourceUsage:
        """From the server's own metrics; what a cancelled request found in the cache is not among them."""
        self._spending.look()
        text = (await self._call("GET", "/metrics", None)).decode()
        numbers = dict(re.findall(r"^llamacpp:(\w+) (\S+)$", text, re.MULTILINE))
        return ResourceUsage(
            requests=self._requests,
            prompt_evaluated=int(float(numbers.get("prompt_tokens_total", 0))),
            prompt_reused=self._reused,
            decoded=int(float(numbers.get("tokens_predicted_total", 0))),
            cpu_s=self._spending.seconds,
            kept=None,
            joined=None,
        )

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        if self._http is None:
            raise EngineFailed("the benchmark's llama.cpp server is not running", fix="This is a bug: report it")
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            words = self._process.stderr_tail if self._process else ""
            raise EngineFailed("the benchmark's llama.cpp server is gone", why=words or str(error)) from error
        if answer.status_code != 200:
            raise EngineFailed(f"llama.cpp answered {answer.status_code}", why=answer.text[:300])
        return answer.content

    def _pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    async def _look(self) -> None:
        while True:
            with suppress(OSError):
                self._spending.look()
            await asyncio.sleep(LOOK_S)
