"""A client of one running llama.cpp server: tokenize, generate, save slots, ask whether it is busy.

It does not start or watch the server's process; see ``engine``.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import msgspec

from peft_core.api_types import FinishReason, Timings
from peft_core.child_process import ChildGone
from peft_core.errors import EngineFailed, InvalidInput
from peft_core.http_client import ConnectionLost, ConnectionPool, HttpResponse, event_data
from peft_daemon.engines.base import GarbledOutput, GenerationChunk, GenerationRequest, Prompt
from peft_daemon.engines.llama_wire import LlamaEvent, decode_event, decode_timings, generation_body
from peft_daemon.engines.llamacpp.saved_states import SavedStateStore, SlotStateSaver
from peft_daemon.engines.llamacpp.slots import Slot, SlotAdapters, Slots

CONNECT_S = 10.0
KEEP_ALIVE_S = 3.0
STEPS_PER_LONG_STEP = 4
MAX_CACHED_TEXTS, MAX_CACHED_CHARACTERS = 1024, 1_000_000
"""Of texts whose token ids are cached, together. The prompts of somebody who types differ by a key: each is a text."""


class TokenCache:
    """The token ids of the texts that were used last, of ``limit`` characters together."""

    def __init__(self, limit: int = MAX_CACHED_CHARACTERS) -> None:
        self._limit, self._characters = limit, 0
        self._tokens: OrderedDict[tuple[str, bool], array[int]] = OrderedDict()
        """A list of integers would take nine times the memory of an array."""

    def get(self, text: str, *, special: bool) -> list[int] | None:
        """Return the token ids of a text; None where they are not known."""
        if (known := self._tokens.get((text, special))) is None:
            return None
        self._tokens.move_to_end((text, special))
        return known.tolist()

    def put(self, text: str, tokens: Sequence[int], *, special: bool) -> None:
        """Keep the token ids of a text that is not known yet, unless it is too long."""
        if len(text) > self._limit or (text, special) in self._tokens:
            return
        self._tokens[text, special] = array("I", tokens)
        self._characters += len(text)
        while self._characters > self._limit or len(self._tokens) > MAX_CACHED_TEXTS:
            (oldest, _), _ = self._tokens.popitem(last=False)
            self._characters -= len(oldest)


class LlamaServerClient:
    """A client of one server at ``unix://PATH`` or ``http://127.0.0.1:PORT``.

    ``context_tokens`` is the context of one slot. A prompt is read in steps, so that a cancelled request ends after the
    current one; they are as long as the request says, or ``step_tokens``. ``states`` is where KV states of slots are
    saved; None saves none. ``digests`` are those of the loaded adapters, in the order in which the server has them.
    """

    def __init__(
        self,
        address: str,
        api_key: str,
        *,
        slots: int,
        context_tokens: int,
        step_tokens: int,
        states: SavedStateStore | None = None,
        digests: Sequence[str] = (),
    ) -> None:
        self.connections = ConnectionPool(
            address,
            headers={"Authorization": f"Bearer {api_key}"},
            connect_s=CONNECT_S,
            keep_alive_s=KEEP_ALIVE_S,
        )
        self._tokens = TokenCache()
        self.slots = Slots(slots)
        self.states = None if states is None else SlotStateSaver(states, self.slots, digests, self._post)
        self._context_tokens, self._step_tokens = context_tokens, step_tokens

    async def save_states(self) -> None:
        """Save the KV states of free slots that are worth saving. Raises nothing."""
        if self.states is not None:
            await self.states.save_free_slots()

    async def close(self) -> None:
        """Release the connections."""
        if self.states is not None:
            await self.states.close()
        self.connections.close()

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the token ids of ``text``; control tokens are recognised only when ``special``."""
        if (known := self._tokens.get(text, special=special)) is not None:
            return known
        body = {"content": text, "add_special": False, "parse_special": special}
        tokens: list[int] = (await self._json("POST", "/tokenize", body))["tokens"]
        self._tokens.put(text, tokens, special=special)
        return tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids; raises InvalidInput for ids that the model does not have."""
        try:
            text: str = (await self._json("POST", "/detokenize", {"tokens": list(tokens)}))["content"]
        except GarbledOutput:
            raise
        except EngineFailed as error:  # nothing else can be wrong with such a request
            raise InvalidInput(
                "the model does not have one of these token ids", why=error.why, fix="Send ids that /tokenize gave"
            ) from None
        return text

    async def tokenize_prompt(self, prompt: Prompt) -> list[int]:
        """Return the token ids of all segments in a row."""
        ids: list[int] = []
        for segment in prompt:
            if segment.text:
                ids += await self.tokenize(segment.text, special=segment.special)
        return ids

    async def unread(self, prompt: Prompt, adapters: SlotAdapters) -> int:
        """Return how many tokens of a prompt neither a slot nor a saved state holds; raises ChildGone."""
        tokens = await self.tokenize_prompt(prompt)
        shared = self.slots.most_shared(tokens, adapters)
        if self.states is not None:
            shared = max(shared, self.states.shared(tokens, adapters))
        return len(tokens) - shared

    async def ping(self) -> None:
        """Ask for the server's health, which it answers also while its slots work; raises ChildGone."""
        await self._json("GET", "/health", None)

    async def busy(self) -> bool:
        """Return whether any slot reads a prompt or decodes."""
        slots = await self._json("GET", "/slots", None)
        return any(slot["is_processing"] for slot in slots)

    async def generate(
        self, request: GenerationRequest, *, adapters: SlotAdapters
    ) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation with the loaded ``adapters`` (position, scale) applied.

        Closing the generator closes the connection, and the server stops at its next step. Raises InvalidInput when
        the prompt does not fit, ChildGone when the server died, EngineFailed on any other answer.
        """
        started = time.perf_counter()
        deadline = None if request.time_budget_ms is None else started + request.time_budget_ms / 1000
        tokens = await self.tokenize_prompt(request.prompt)
        read, written, first_token_ms, under_way = Timings(), Timings(), 0.0, 0

        def timings() -> Timings:
            return Timings(
                prompt_tokens=len(tokens),
                prompt_evaluated=read.prompt_evaluated + (written.prompt_evaluated or under_way),
                prompt_reused=(
                    read.prompt_reused
                    if read.prompt_evaluated or not written.prompt_evaluated
                    else written.prompt_reused
                ),
                prompt_ms=read.prompt_ms + written.prompt_ms,
                first_token_ms=first_token_ms,
                decode_tokens=written.decode_tokens,
                decode_ms=written.decode_ms,
                engine_ms=(time.perf_counter() - started) * 1000,
            )

        step = request.step_tokens or self._step_tokens
        async with self._slot(tokens, adapters) as slot:
            body = {
                **generation_body(request, tokens),
                "id_slot": slot.number,
                "lora": [{"id": position, "scale": scale} for position, scale in adapters],
            }
            try:
                async with aclosing(self._read(slot, body, adapters, step, deadline)) as steps:
                    async for so_far in steps:
                        read = so_far
                        yield GenerationChunk(timings=timings())
            except TimeoutError:
                yield GenerationChunk(reason=FinishReason.TIMEOUT, timings=timings())
                return
            if not request.max_tokens:
                yield GenerationChunk(reason=FinishReason.LENGTH, timings=timings())
                return
            under_way = max(1, len(tokens) - slot.shared(tokens, adapters))
            yield GenerationChunk(timings=timings())
            async with aclosing(self._events(body, deadline)) as events:
                async for event in events:
                    if event.timings is not None:
                        written = event.timings
                    if not first_token_ms and written.decode_tokens:
                        slot.holds(tokens, adapters)
                        slot.applied = adapters
                        first_token_ms = (time.perf_counter() - started) * 1000
                    slot.wrote(event.tokens, written.decode_tokens)
                    if event.text:
                        yield GenerationChunk(event.text, event.logprobs, timings())
                    if event.reason is not None:
                        yield GenerationChunk(reason=event.reason, timings=timings())
                        return
        if deadline is not None and time.perf_counter() >= deadline:
            yield GenerationChunk(reason=FinishReason.TIMEOUT, timings=timings())
            return
        raise ChildGone

    @asynccontextmanager
    async def _slot(self, tokens: list[int], adapters: SlotAdapters) -> AsyncGenerator[Slot, None]:
        """Reserve a slot for one request; a saved state that holds more of the prompt is restored into it first."""
        async with self.slots.take(tokens, adapters) as slot:
            fits = len(tokens) <= self._context_tokens
            if self.states is None or not fits:
                yield slot
                return
            await self.states.prepare(slot, tokens, adapters)
            try:
                yield slot
            finally:
                self.states.released(slot)

    async def _read(
        self, slot: Slot, body: Mapping[str, Any], adapters: SlotAdapters, step_tokens: int, deadline: float | None
    ) -> AsyncGenerator[Timings, None]:
        """Read the prompt into ``slot`` in steps of ``step_tokens``.

        The last step is left to the request that writes, if one follows.
        Yields the work of all steps so far before and after each step. The step under way counts as done, because the
        server completes it in any case. Raises TimeoutError at the deadline.
        """
        tokens: list[int] = body["prompt"]
        known = slot.shared(tokens, adapters)
        total = Timings(prompt_reused=known)
        to_the_end = not body["n_predict"]
        too_long = len(tokens) > self._context_tokens
        # A prompt that is too long is sent whole, and the server refuses it.
        # Reading ahead takes no long steps: a request that comes meanwhile waits for the end of the current step.
        long_steps = 0 if to_the_end else STEPS_PER_LONG_STEP
        ends = [] if too_long else list(_step_ends(known, len(tokens), step_tokens, long_steps))
        if to_the_end and known < len(tokens):
            ends.append(len(tokens))
        yield total
        if not ends and (to_the_end or too_long):
            return
        slot.holds(tokens[:known], adapters)
        if slot.applied != adapters:
            slot.applied = None
        for length in ends:
            begun = msgspec.structs.replace(total, prompt_evaluated=total.prompt_evaluated + length - known)
            yield begun
            step_body = {**body, "prompt": tokens[:length], "n_predict": 0, "stream": False}
            async with asyncio.timeout(None if deadline is None else deadline - time.perf_counter()):
                step = decode_timings(await self._json("POST", "/completion", step_body))
            slot.holds(tokens[:length], adapters)
            slot.applied = adapters
            total = Timings(
                prompt_reused=total.prompt_reused if total.prompt_evaluated else step.prompt_reused,
                prompt_evaluated=total.prompt_evaluated + step.prompt_evaluated,
                prompt_ms=total.prompt_ms + step.prompt_ms,
            )
            known = length
            yield total

    async def _events(self, body: dict[str, Any], deadline: float | None) -> AsyncGenerator[LlamaEvent, None]:
        """Yield the server's events until its last one or the deadline."""
        try:
            async with (
                self._send("POST", "/completion", body, keep=False) as response,
                aclosing(event_data(response.aiter_bytes())) as events,
            ):
                if response.status_code != 200:
                    raise _refusal(response.status_code, await response.aread())
                while True:
                    remaining = None if deadline is None else max(0.0, deadline - time.perf_counter())
                    try:
                        async with asyncio.timeout(remaining):
                            data = await anext(events)
                    except (StopAsyncIteration, TimeoutError):
                        return
                    try:
                        event = decode_event(data)
                    except (ValueError, RecursionError) as error:
                        raise GarbledOutput(str(error)) from None
                    if event.error:
                        raise _failure("the engine refused the request", event.error)
                    yield event
        except ConnectionLost as error:
            raise ChildGone from error

    async def _post(self, path: str, body: object) -> Any:
        return await self._json("POST", path, body)

    async def _json(self, method: str, path: str, body: object) -> Any:
        try:
            async with self._send(method, path, body) as response:
                content = await response.aread()
        except ConnectionLost as error:
            raise ChildGone from error
        if response.status_code != 200:
            raise _refusal(response.status_code, content)
        try:
            return msgspec.json.decode(content)
        except (ValueError, RecursionError) as error:
            raise GarbledOutput(str(error)) from None

    def _send(
        self, method: str, path: str, body: object, *, keep: bool = True
    ) -> AbstractAsyncContextManager[HttpResponse]:
        content = b"" if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        # The server closes a connection after a stream, and after five unused seconds. Using it again would be a race.
        return self.connections.send(method, path, content=content, headers=headers, keep=keep)


def _step_ends(known: int, length: int, step: int, long_steps: int) -> Iterator[int]:
    """Yield the lengths at which steps of reading end, without the last; long steps, which read faster, come first.

    A keystroke changes only the end of a prompt, so the next request needs the beginning as well.
    """
    while long_steps and length - known > long_steps * step:
        known += long_steps * step
        yield known
    yield from range(known + step, length, step)


def _refusal(status: int, body: bytes) -> InvalidInput | EngineFailed:
    try:
        error = msgspec.json.decode(body)["error"]
        message, kind = str(error["message"]), str(error.get("type", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        message, kind = body[:200].decode(errors="replace"), ""
    if kind == "exceed_context_size_error":
        return InvalidInput(
            "the prompt does not fit into the model's context",
            why=message,
            fix="Send less text or set `context_tokens` higher",
        )
    return _failure(f"the engine answered {status}", message)


def _failure(what: str, message: str) -> EngineFailed:
    """Return llama.cpp's error. That no token fits a grammar happens only with damaged weights."""
    return GarbledOutput(message) if "grammar stack" in message else EngineFailed(what, why=message)
