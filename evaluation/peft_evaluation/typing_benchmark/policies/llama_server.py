"""The llama.cpp server of the re-created policies, and the resources it uses.

It has the settings that llama.vscode's README recommends for a CPU: ``llama-server -ub 1024 -b 1024 --ctx-size 0
--cache-reuse 256``. Everything else is the server's default, e.g. four slots with one KV cache. There are two
differences: the context is 8,192 tokens instead of the model's 32,768, which no request here needs, and threads wait
passively, as ours do by default, so that a busy machine slows down all policies alike.
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
SAMPLE_S = 2.0


class RivalServer:
    """A server process, from ``start`` to ``stop``."""

    def __init__(self, engine: BenchModel) -> None:
        self._engine = engine
        self._process: ChildProcess | None = None
        self._http: httpx.AsyncClient | None = None
        self._cpu = CpuMeter(self._pids)
        self._sampling: asyncio.Task[None] | None = None
        self._requests = 0
        self._reused = 0

    async def start(self) -> None:
        """Start the process; raises EngineFailed if it cannot load the model."""
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
            # A kept connection fails if the server has closed it; a new one takes less than a millisecond.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )
        self._sampling = asyncio.create_task(self._sample_regularly())

    async def stop(self) -> None:
        """End the process."""
        if self._sampling is not None:
            self._sampling.cancel()
        if self._http is not None:
            await self._http.aclose()
        if self._process is not None:
            await self._process.stop(grace_s=1.0)

    async def post(self, path: str, body: Mapping[str, Any]) -> list[str]:
        """Send a request without streaming, and return its completions (several with ``n_cmpl``).

        Raises EngineFailed for any status but 200. If the call is cancelled, the connection is closed, and the server
        stops generating.
        """
        self._requests += 1
        found = msgspec.json.decode(await self._call("POST", path, body))
        completions = found if isinstance(found, list) else [found]
        self._reused += sum(each.get("timings", {}).get("cache_n", 0) for each in completions)
        return [each.get("content", "") for each in completions]

    async def totals(self) -> ResourceUsage:
        """Return the usage from the server's metrics; they lack the cached tokens of cancelled requests."""
        self._cpu.sample()
        text = (await self._call("GET", "/metrics", None)).decode()
        numbers = dict(re.findall(r"^llamacpp:(\w+) (\S+)$", text, re.MULTILINE))
        return ResourceUsage(
            requests=self._requests,
            prompt_evaluated=int(float(numbers.get("prompt_tokens_total", 0))),
            prompt_reused=self._reused,
            decoded=int(float(numbers.get("tokens_predicted_total", 0))),
            cpu_s=self._cpu.seconds,
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
            raise EngineFailed("the benchmark's llama.cpp server has ended", why=words or str(error)) from error
        if answer.status_code != 200:
            raise EngineFailed(f"llama.cpp answered {answer.status_code}", why=answer.text[:300])
        return answer.content

    def _pids(self) -> list[int]:
        return [] if self._process is None else [self._process.pid]

    async def _sample_regularly(self) -> None:
        while True:
            with suppress(OSError):
                self._cpu.sample()
            await asyncio.sleep(SAMPLE_S)
