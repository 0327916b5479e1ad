"""A client of one upstream server: probe it, tokenize, generate, load adapters.

Whatever is wrong with the server is an ``UpstreamFailed`` with the cause and the next command. The key is sent in a
header and stands nowhere else: not in errors, which quote the server.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from peft_core.api_types import FinishReason
from peft_core.http_client import ConnectionLost, ConnectionPool, ConnectionTimeout, HttpResponse, event_data
from peft_daemon.engines.base import GenerationChunk, GenerationRequest, Prompt, Segment
from peft_daemon.engines.upstream.failures import (
    CHECK_COMMAND,
    MAX_QUOTED_CHARACTERS,
    AdapterRefused,
    KeyRefused,
    ServerErrors,
    UpstreamAddress,
    UpstreamFailed,
    UpstreamRefused,
    message_of,
)
from peft_daemon.engines.upstream.protocols import (
    PROTOCOLS,
    ModelPrompt,
    OpenAiProtocol,
    ServerEvent,
    literal_pieces,
    prompt_as_text,
)
from peft_daemon.engines.upstream.streamed import StreamedAnswer

CONNECT_S = 5.0
KEEP_ALIVE_S = 4.0
ANSWER_S = 10.0
"""Longest wait for the answer to a small request, and between two events of a stream."""
MAX_ANSWER_BYTES = 16_000_000
"""Longest answer that is read."""
MAX_CACHED_TEXTS = 2048
MAX_CACHED_TEXT_CHARACTERS = 200_000
BYTES_PER_TOKEN = 3
"""By which tokens are estimated for a server without a tokenizer to ask; code has 3 to 4."""


@dataclass(frozen=True)
class ServerFacts:
    """What probing found."""

    protocol: OpenAiProtocol
    version: str
    model: str
    """The name that requests for the base give."""
    models: tuple[str, ...]
    tokenizes: bool
    """Whether prompts are sent as token ids."""


class UpstreamServer:
    """A client of the server at ``address``; ``kind`` and ``model`` are as in the settings, empty for any."""

    def __init__(
        self,
        address: UpstreamAddress,
        *,
        kind: str = "auto",
        model: str = "",
        context_tokens: int,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._address, self._kind, self._model, self._context_tokens = address, kind, model, context_tokens
        self._errors = ServerErrors(address)
        self._answer_s = answer_s
        parts = urlsplit(address.url)
        self._base_path = parts.path.rstrip("/")
        self._connections = ConnectionPool(
            f"{parts.scheme}://{parts.netloc}",
            headers={"Authorization": f"Bearer {address.key}"} if address.key else {},
            connect_s=CONNECT_S,
            keep_alive_s=KEEP_ALIVE_S,
        )
        self._tokens: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()

    def close(self) -> None:
        """Release the connections."""
        self._connections.close()

    async def probe(self, before: ServerFacts | None = None) -> ServerFacts:
        """Find out what the server is and which model it serves; raises UpstreamFailed.

        ``before`` is what the last probe found: token ids that are known stay so unless something changed.
        """
        protocol, version = await self._recognize()
        models = await self._models(protocol)
        model = self._chosen(models)
        facts = ServerFacts(protocol, version, model, models, tokenizes=True)
        if before is None or replace(before, tokenizes=True) != facts:
            self._tokens.clear()
        self._tokens.pop(("x", False), None)
        try:
            await self._tokenize(facts, "x", special=False)
        except UpstreamRefused:
            if protocol.literal:
                raise
            return replace(facts, tokenizes=False)
        return facts

    async def count_tokens(self, facts: ServerFacts, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, tokenized literally; estimated where the server cannot tell."""
        if not facts.tokenizes:
            return [math.ceil(len(text.encode()) / BYTES_PER_TOKEN) for text in texts]
        return [len(tokens) for tokens in await asyncio.gather(*(self._literal(facts, text) for text in texts))]

    async def load_adapter(self, facts: ServerFacts, name: str, folder: str) -> None:
        """Have the server load the adapter in ``folder``, a path on its machine.

        Raises AdapterRefused where it does not, UpstreamFailed where it does not answer.
        """
        path = facts.protocol.loads_adapters
        status, content = (
            await self._request("POST", path, {"lora_name": name, "lora_path": folder})
            if path
            else (404, b"this kind of server loads no adapters")
        )
        # It is there since an earlier start of the daemon.
        if status == 200 or b"already" in content:
            return
        raise AdapterRefused(
            f"{self._address.host} did not load the adapter '{name}'",
            why=f"{status} {self._errors.quoted(message_of(content))}",
            fix="Let it load adapters while it runs, and see the folder (docs/scale.md), then `peft-daemon stop`",
        )

    async def generate(
        self, facts: ServerFacts, request: GenerationRequest, *, model: str
    ) -> AsyncGenerator[GenerationChunk, None]:
        """Stream one generation; closing the generator closes the connection.

        Raises UpstreamFailed, and InvalidInput for a prompt that does not fit.
        """
        protocol, started = facts.protocol, time.perf_counter()
        if not request.max_tokens and not protocol.keeps_prompts:
            yield GenerationChunk(reason=FinishReason.LENGTH)
            return
        deadline = None if request.time_budget_ms is None else started + request.time_budget_ms / 1000
        added = "" if protocol.constrains else request.begins_with
        answer = StreamedAnswer(request, started)
        try:
            async with asyncio.timeout(_remaining(deadline)):
                prompt, answer.prompt_tokens = await self._prompt(facts, request.prompt, added)
        except TimeoutError:
            yield answer.end(FinishReason.TIMEOUT)
            return
        yield GenerationChunk(timings=answer.timings())
        body = protocol.body(request, prompt, model, self._context_tokens)
        async with aclosing(self._events(protocol, body, deadline)) as events:
            async for event in events:
                if (chunk := answer.add(event)) is not None:
                    # Text is sent only once the server has written some: until then another engine can take over.
                    if chunk.text:
                        chunk, added = replace(chunk, text=added + chunk.text), ""
                    yield chunk
                if answer.over:
                    break
        if answer.reason is None:
            if deadline is None or time.perf_counter() < deadline:
                raise UpstreamFailed(
                    f"{self._address.host} ended its answer early", why="its stream has no end, or is none"
                )
            answer.reason = FinishReason.TIMEOUT
        if rest := added + answer.rest():
            yield GenerationChunk(rest, timings=answer.timings())
        yield answer.end(answer.reason)

    async def _prompt(self, facts: ServerFacts, prompt: Prompt, added: str) -> tuple[ModelPrompt, int]:
        """Return the prompt as it is sent, ``added`` at its end, and its tokens, estimated where it is text."""
        if not facts.tokenizes:
            text = prompt_as_text((*prompt, Segment(added)))
            return text, (await self.count_tokens(facts, [text]))[0]
        lists = await asyncio.gather(
            *(
                self._control(facts, each.text) if each.special else self._literal(facts, each.text)
                for each in prompt
                if each.text
            ),
            self._literal(facts, added),
        )
        ids = [token for each in lists for token in each]
        return ids, len(ids)

    async def _literal(self, facts: ServerFacts, text: str) -> list[int]:
        pieces = [text] if facts.protocol.literal else literal_pieces(text)
        lists = await asyncio.gather(*(self._tokenize(facts, piece, special=False) for piece in pieces if piece))
        return [token for each in lists for token in each]

    async def _control(self, facts: ServerFacts, text: str) -> list[int]:
        """Return the ids of a control token; a model that spells it is another one than the formats are for."""
        ids = await self._tokenize(facts, text, special=True)
        spelled = await self._literal(facts, text)
        if ids == spelled and len(ids) > 1:
            raise UpstreamFailed(
                f"the model '{facts.model}' of {self._address.host} does not know the control token {text}",
                why="it is of another family than `model`, whose prompt formats are used",
                fix="Set `upstream_model` or `model` so that both are of one family (`peft-daemon models list`)",
            )
        return ids

    async def _tokenize(self, facts: ServerFacts, text: str, *, special: bool) -> list[int]:
        key = (text, special)
        if (known := self._tokens.get(key)) is not None:
            self._tokens.move_to_end(key)
            return known
        asked = facts.protocol.tokenization(text, facts.model, special=special)
        if asked is None:
            raise UpstreamRefused("the server has no tokenizer to ask")
        answer = await self._json("POST", asked.path, asked.body)
        try:
            tokens = msgspec.convert(answer[asked.answer], list[int])
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise self._errors.nonsense(f"no token ids from {asked.path}: {error}") from None
        if len(text) <= MAX_CACHED_TEXT_CHARACTERS:
            self._tokens[key] = tokens
            if len(self._tokens) > MAX_CACHED_TEXTS:
                self._tokens.popitem(last=False)
        return tokens

    async def _events(
        self, protocol: OpenAiProtocol, body: dict[str, Any], deadline: float | None
    ) -> AsyncGenerator[ServerEvent, None]:
        """Yield events until the server's last one or the deadline."""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(_remaining(deadline, self._answer_s)):
                    response = await stack.enter_async_context(self._send("POST", protocol.path, body, keep=False))
                    if response.status_code != 200:
                        raise self._errors.refusal(response.status_code, await self._read(response))
                if "html" in response.content_type:
                    raise self._errors.web_page()
                lines = event_data(_bounded(response.aiter_bytes()), protocol.event_prefix)
                await stack.enter_async_context(aclosing(lines))
                while True:
                    async with asyncio.timeout(_remaining(deadline, self._answer_s)):
                        data = await anext(lines, None)
                    if data is None:
                        return
                    event = self._event(protocol, data)
                    yield event
                    if event.last:
                        return
        except TimeoutError:
            if deadline is None or time.perf_counter() < deadline:
                raise self._errors.slow() from None
        except ConnectionLost as error:
            raise self._errors.lost(error) from None

    def _event(self, protocol: OpenAiProtocol, data: bytes) -> ServerEvent:
        try:
            event = protocol.event(data)
        except (ValueError, RecursionError) as error:
            raise self._errors.nonsense(str(error)) from None
        if event.error:
            raise self._errors.failure(f"{self._address.host} ended its answer with an error", event.error)
        return event

    async def _recognize(self) -> tuple[OpenAiProtocol, str]:
        """Return what kind of server it is, and its version where it says so."""
        problem: UpstreamFailed | None = None
        for protocol in PROTOCOLS:
            if self._kind not in ("auto", protocol.kind):
                continue
            for path in protocol.probes:
                try:
                    answer = await self._json("GET", path, None)
                except UpstreamRefused as error:
                    # A gateway may refuse what it does not know; the last path is one that all know.
                    problem = error
                    continue
                if isinstance(answer, dict) and protocol.probe_field in answer:
                    return protocol, str(answer.get(protocol.version_field, ""))[:MAX_QUOTED_CHARACTERS]
        if isinstance(problem, KeyRefused):
            raise problem
        kind = "a server of a known kind" if self._kind == "auto" else f"a server of the kind {self._kind}"
        raise UpstreamFailed(
            f"{self._address.url} is not {kind}",
            why="" if problem is None else problem.line,
            fix="Correct `upstream_url` or `upstream_kind`, then `peft-daemon upstream check`",
        )

    async def _models(self, protocol: OpenAiProtocol) -> tuple[str, ...]:
        path, field, name = protocol.models
        answer = await self._json("GET", path, None)
        try:
            models = tuple(str(each[name]) for each in answer[field])
        except (KeyError, TypeError) as error:
            raise self._errors.nonsense(f"no list of models from {path}: {error}") from None
        if not models:
            raise UpstreamFailed(f"{self._address.host} serves no model", fix=f"Load one there; {CHECK_COMMAND}")
        return models

    def _chosen(self, models: tuple[str, ...]) -> str:
        if self._model in models or (not self._model and len(models) == 1):
            return self._model or models[0]
        names = ", ".join(models[:8]) + (", …" if len(models) > 8 else "")
        if not self._model:
            what = f"{self._address.host} serves {len(models)} models, and `upstream_model` chooses none"
        else:
            what = f"{self._address.host} has no model '{self._model}'"
        raise UpstreamFailed(
            what, why=f"it has {names}", fix="Set `upstream_model` to one of them, then `peft-daemon upstream check`"
        )

    async def _json(self, method: str, path: str, body: object) -> Any:
        status, content = await self._request(method, path, body)
        if status != 200:
            raise self._errors.refusal(status, content)
        if content.lstrip().startswith(b"<"):
            raise self._errors.web_page()
        try:
            return msgspec.json.decode(content)
        except (ValueError, RecursionError) as error:
            raise self._errors.nonsense(str(error)) from None

    async def _request(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(ANSWER_S), self._send(method, path, body) as response:
                return response.status_code, await self._read(response)
        except TimeoutError:
            raise self._errors.slow() from None
        except ConnectionLost as error:
            raise self._errors.lost(error) from None

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, body: object, *, keep: bool = True
    ) -> AsyncGenerator[HttpResponse, None]:
        content = b"" if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        target = self._base_path + path
        async with AsyncExitStack() as stack:
            send = partial(self._connections.send, method, target, content=content, headers=headers, keep=keep)
            try:
                response = await stack.enter_async_context(send())
            except ConnectionTimeout:
                raise
            except ConnectionLost:
                # The server, or a proxy before it, may have closed the connection while it was unused.
                self._connections.close_unused()
                response = await stack.enter_async_context(send())
            yield response

    async def _read(self, response: HttpResponse) -> bytes:
        return b"".join([piece async for piece in _bounded(response.aiter_bytes())])


def _remaining(deadline: float | None, limit_s: float | None = None) -> float | None:
    """Return the seconds until the deadline, but at most ``limit_s``; None for no limit."""
    if deadline is None:
        return limit_s
    left = max(0.0, deadline - time.perf_counter())
    return left if limit_s is None else min(left, limit_s)


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield ``chunks``; raises ConnectionLost when they are more than any answer has."""
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > MAX_ANSWER_BYTES:
            raise ConnectionLost(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        yield chunk
