"""A llama.cpp server that is played: what it does with slots, prompts, adapters and saved states, and no model.

Of every cached token it knows which adapters it was read with, and it notes when one is used again under others, which
the real one would do without a word. It goes on with what it has begun when the client hangs up, as the real one does;
requests that wait for a slot come in order of their arrival.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from peft_core.http_client import HttpConnection, ServerAddress
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore
from peft_daemon.engines.llamacpp.server import LlamaServerClient

Weights = tuple[tuple[str, float], ...]


@dataclass
class PlayedSlot:
    """What one slot of the server really holds."""

    lora: tuple[tuple[int, float], ...] | None = None
    cached: list[tuple[int, Weights]] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def tokens(self) -> list[int]:
        return [token for token, _ in self.cached]


class PlayedLlama(httpx.AsyncBaseTransport):
    """``digests`` are those of the adapters it was started with."""

    def __init__(self, folder: Path, digests: tuple[str, ...], *, slots: int = 1, seed: int = 0) -> None:
        self.folder, self.digests = folder, digests
        self.slots = [PlayedSlot() for _ in range(slots)]
        self.leaks: list[str] = []
        self.orders: list[str] = []
        """Paths of all requests but those for tokens."""
        self.fails = False
        """Whether saving and restoring fail."""
        self.gate = asyncio.Event()
        """Not set: orders about states wait."""
        self.gate.set()
        self.writes = "x"
        """The text of each token."""
        self._under_way = 0
        self._random = random.Random(seed)

    def client(self, states: SavedStateStore | None, *, step_tokens: int = 3) -> LlamaServerClient:
        """A client of it."""
        server = LlamaServerClient(
            "http://127.0.0.1:1",
            "key",
            slots=len(self.slots),
            context_tokens=4096,
            step_tokens=step_tokens,
            states=states,
            digests=self.digests,
        )
        server.connections.connect = lambda: PlayedConnection(self)
        return server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer; the work goes on when whoever asked is cancelled."""
        body = json.loads(request.content or b"null")
        if request.url.path == "/health":
            return httpx.Response(200, json={"status": "ok"})
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"tokens": [ord(c) for c in body["content"]]})
        if request.url.path == "/detokenize":
            return httpx.Response(200, json={"content": "".join(chr(token) for token in body["tokens"])})
        self.orders.append(request.url.raw_path.decode())
        self._under_way += 1
        work = asyncio.ensure_future(self._work(request, body))
        return await asyncio.shield(work)

    async def quiet(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.sleep(0)

    async def _work(self, request: httpx.Request, body: dict[str, Any]) -> httpx.Response:
        path = request.url.path
        slot = self.slots[int(path.split("/")[2]) if path.startswith("/slots/") else body["id_slot"]]
        async with slot.turn:
            return await self._in_turn(request, body, slot)

    async def _in_turn(self, request: httpx.Request, body: dict[str, Any], slot: PlayedSlot) -> httpx.Response:
        path = request.url.path
        try:
            await self._pause()
            if path == "/completion":
                return self._completion(slot, body)
            await self.gate.wait()
            if self.fails:
                return httpx.Response(400, json={"error": {"message": "no", "type": "invalid_request_error"}})
            file = self.folder / body["filename"]
            if request.url.params["action"] == "save":
                file.write_text(json.dumps(slot.cached))
                return httpx.Response(200, json={"n_saved": len(slot.cached), "n_written": file.stat().st_size})
            if not file.exists():  # evicted in the meantime
                return httpx.Response(400, json={"error": {"message": "no file", "type": "invalid_request_error"}})
            slot.cached = [(t, tuple((d, s) for d, s in w)) for t, w in json.loads(file.read_text())]
            return httpx.Response(200, json={"n_restored": len(slot.cached)})
        finally:
            self._under_way -= 1

    def _completion(self, slot: PlayedSlot, body: dict[str, Any]) -> httpx.Response:
        lora = tuple((each["id"], each["scale"]) for each in body["lora"])
        if lora != slot.lora:
            slot.cached.clear()
            slot.lora = lora
        weights = tuple((self.digests[i], scale) for i, scale in lora if scale)
        prompt: list[int] = body["prompt"]
        reused = 0
        while reused < min(len(slot.cached), len(prompt) - 1) and slot.cached[reused][0] == prompt[reused]:
            if slot.cached[reused][1] != weights:
                self.leaks.append(f"{slot.cached[reused]} under {weights}")
            reused += 1
        slot.cached = [*slot.cached[:reused], *((token, weights) for token in prompt[reused:])]
        timings = {"cache_n": reused, "prompt_n": len(prompt) - reused, "prompt_ms": 1.0, "predicted_ms": 1.0}
        if not body["stream"]:
            return httpx.Response(200, json={"timings": {**timings, "predicted_n": 1}})
        events = []
        for number in range(1, body["n_predict"] + 1):
            token = (sum(prompt) + number) % 7
            told = self._random.random() < 0.9  # a token that completes no character is not
            if told:
                event = {"content": self.writes, "tokens": [token], "timings": {**timings, "predicted_n": number}}
                events.append(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            if number < body["n_predict"]:
                slot.cached.append((token, weights))
        end = {"stop": True, "stop_type": "limit", "timings": {**timings, "predicted_n": body["n_predict"]}}
        events.append(f"data: {json.dumps(end)}\n\n".encode())
        return httpx.Response(200, stream=_Stream(events))

    async def _pause(self) -> None:
        for _ in range(self._random.choice((0, 3, 30))):
            await asyncio.sleep(0)


class PlayedConnection(HttpConnection):
    """A connection to a server that is played by a transport."""

    def __init__(self, server: httpx.AsyncBaseTransport) -> None:
        super().__init__(ServerAddress("http://localhost", {}), 1.0)
        self._server = server

    async def send(  # type: ignore[override]  # httpx's response has all that is used of it
        self, method: str, path: str, *, content: bytes, headers: Mapping[str, str], read_s: float | None
    ) -> httpx.Response:
        return await self._server.handle_async_request(httpx.Request(method, f"http://x{path}", content=content))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await asyncio.sleep(0)
            yield part
