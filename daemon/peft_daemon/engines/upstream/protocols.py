"""What each kind of server understands: paths, request bodies, and the events of its streams. Sends nothing.

A protocol is a class, and ``PROTOCOLS`` lists them in the order in which an unknown server is tried. OpenAI's
``/v1/completions`` is the common form; the others say what they do otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import msgspec

from peft_core.api_types import FinishReason
from peft_daemon.engines.base import GenerationRequest, Prompt, TokenLogprob
from peft_daemon.engines.llama_wire import decode_event, error_message, generation_body

ModelPrompt = list[int] | str
"""A prompt as a server gets it: token ids where it can tokenize, else text with control tokens spelled out."""

MAX_OPENAI_STOPS = 4
"""Stop strings that every server of OpenAI's protocol takes. The others are looked for here."""
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜][\w▁]+[|｜]>|\[[\w▁-]+\]>)"
    r"|<(?=/?(?:s|unk|pad|bos|eos|mask|PRE|SUF|MID|EOT|(?:start|end)_of_turn|reponame|filename)>)"
    r"|<(?=(?:fim|file|repo|jupyter|issue|extra_id)_\w+>)"
    r"|\[(?=(?:PREFIX|SUFFIX|MIDDLE|/?INST)\])"
)
"""The first character of what a tokenizer of a known model family takes for a control token."""


@dataclass(frozen=True)
class ServerEvent:
    """One event of a server's stream, the same for all kinds. None: the server did not say."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: FinishReason | None = None
    """Why the answer is over; None while it is not."""
    prompt_read: int | None = None
    """Prompt tokens that were read, without those that the server's cache held."""
    prompt_reused: int | None = None
    written: int | None = None
    """Tokens of the answer so far."""
    last: bool = False
    """Whether nothing follows."""
    error: str = ""


@dataclass(frozen=True)
class Tokenization:
    """A request that tokenizes a text, and the field of the answer that has the token ids."""

    body: Mapping[str, Any]
    path: str = "/tokenize"
    answer: str = "tokens"


class OpenAiProtocol:
    """Any server with ``/v1/completions``."""

    kind: ClassVar[str] = "openai"
    probes: ClassVar[tuple[str, ...]] = ("/v1/models",)
    """Paths of which one answers with JSON in which ``probe_field`` stands, on this kind of server only."""
    probe_field: ClassVar[str] = "data"
    version_field: ClassVar[str] = ""
    """Field of the probe's answer that has the server's version; empty where none has."""
    models: ClassVar[tuple[str, str, str]] = ("/v1/models", "data", "id")
    """Path of the list of models, its field, and the field of each model's name."""
    path: ClassVar[str] = "/v1/completions"
    event_prefix: ClassVar[bytes] = b"data:"
    """What a line of the stream begins with that holds an event."""
    min_tokens: ClassVar[int] = 1
    """Least number of tokens that the server writes."""
    constrains: ClassVar[bool] = False
    """Whether the server can be told how the answer has to begin."""
    literal: ClassVar[bool] = False
    """Whether its tokenizer can be told to take control tokens for plain text."""
    keeps_prompts: ClassVar[bool] = False
    """Whether a prompt that was read ahead is known to be faster afterwards; else none is sent."""
    loads_adapters: ClassVar[str] = ""
    """Path that loads an adapter from a folder; empty where the server cannot."""

    def tokenization(self, text: str, model: str, *, special: bool) -> Tokenization | None:
        """Return the request that tokenizes ``text``, with control tokens if ``special``; None where there is none."""
        return Tokenization({"model": model, "prompt": text, "add_special_tokens": False})

    def adapter_model(self, base: str, name: str) -> str:
        """Return the name under which the server serves the adapter ``name`` of the model ``base``."""
        return name

    def body(self, request: GenerationRequest, prompt: ModelPrompt, model: str, context_tokens: int) -> dict[str, Any]:
        """Return the body of a streamed request."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max(request.max_tokens, self.min_tokens),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            body["stop"] = list(request.stop[:MAX_OPENAI_STOPS])
        if sampling.temperature:
            body["seed"] = sampling.seed
        if request.logprobs:
            body["logprobs"] = request.logprobs
        return body

    def event(self, data: bytes) -> ServerEvent:
        """Return the event in ``data``; raises ValueError for what is none."""
        if data == b"[DONE]":
            return ServerEvent(last=True)
        if error := msgspec.json.decode(data, type=_Failure).error:
            return ServerEvent(error=error_message(error))
        return self._event(data)

    def _event(self, data: bytes) -> ServerEvent:
        event = msgspec.json.decode(data, type=_CompletionEvent)
        choice = event.choices[0] if event.choices else _Choice()
        usage = event.usage or _Usage()
        reused = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        return ServerEvent(
            text=choice.text or "",
            logprobs=_logprobs(choice.logprobs) if choice.logprobs else (),
            reason=_REASONS.get(choice.finish_reason, FinishReason.STOP) if choice.finish_reason else None,
            prompt_read=None if usage.prompt_tokens is None else usage.prompt_tokens - (reused or 0),
            prompt_reused=reused,
            written=usage.completion_tokens,
        )


class _ServerWithTokenizer(OpenAiProtocol):
    """What vLLM and SGLang have in common beyond OpenAI's protocol."""

    keeps_prompts = True

    def body(self, request: GenerationRequest, prompt: ModelPrompt, model: str, context_tokens: int) -> dict[str, Any]:
        """Return OpenAI's body without its limits; control tokens are written, as stop strings name them."""
        body = super().body(request, prompt, model, context_tokens)
        body |= {"skip_special_tokens": False, "spaces_between_special_tokens": False, "top_k": -1}
        if request.stop:
            body["stop"] = list(request.stop)
        return body


class VllmProtocol(_ServerWithTokenizer):
    """vLLM's OpenAI-compatible server."""

    kind = "vllm"
    probes, probe_field, version_field = ("/version",), "version", "version"
    loads_adapters = "/v1/load_lora_adapter"


class SglangProtocol(_ServerWithTokenizer):
    """SGLang's server."""

    kind = "sglang"
    probes, probe_field = ("/model_info", "/get_model_info"), "tokenizer_path"
    loads_adapters = "/load_lora_adapter"

    def adapter_model(self, base: str, name: str) -> str:
        """Return SGLang's form, base and adapter in one name."""
        return f"{base}:{name}"


class LlamaServerProtocol(OpenAiProtocol):
    """llama.cpp's ``llama-server``, by its own ``/completion``."""

    kind = "llama-server"
    probes, probe_field, version_field = ("/props",), "default_generation_settings", "build_info"
    path = "/completion"
    min_tokens = 0
    constrains = literal = keeps_prompts = True

    def tokenization(self, text: str, model: str, *, special: bool) -> Tokenization:
        """Return the request that tokenizes ``text``."""
        return Tokenization({"content": text, "add_special": False, "parse_special": special, "model": model})

    def body(self, request: GenerationRequest, prompt: ModelPrompt, model: str, context_tokens: int) -> dict[str, Any]:
        """Return the body of a streamed request; ``model`` matters to a server that routes to several."""
        return {**generation_body(request, prompt), "model": model, "return_progress": True}

    def _event(self, data: bytes) -> ServerEvent:
        event = decode_event(data)
        timings = event.timings
        return ServerEvent(
            text=event.text,
            logprobs=event.logprobs,
            reason=event.reason,
            prompt_read=timings.prompt_evaluated if timings else None,
            prompt_reused=timings.prompt_reused if timings else None,
            written=timings.decode_tokens if timings else None,
            last=event.reason is not None,
        )


class OllamaProtocol(OpenAiProtocol):
    """Ollama, by ``/api/generate`` without its template; it has no tokenizer to ask."""

    kind = "ollama"
    probes, probe_field, version_field = ("/api/version",), "version", "version"
    models = ("/api/tags", "models", "name")
    path = "/api/generate"
    event_prefix = b""
    keeps_prompts = True

    def tokenization(self, text: str, model: str, *, special: bool) -> None:
        """Return None."""

    def body(self, request: GenerationRequest, prompt: ModelPrompt, model: str, context_tokens: int) -> dict[str, Any]:
        """Return the body of a streamed request; without ``num_ctx`` a long prompt would be cut silently."""
        return {
            "model": model,
            "prompt": prompt,
            "raw": True,
            "stream": True,
            "options": {
                "num_predict": max(request.max_tokens, self.min_tokens),
                "num_ctx": context_tokens,
                "temperature": request.sampling.temperature,
                "top_p": request.sampling.top_p,
                "top_k": 0,
                "min_p": 0.0,
                "repeat_penalty": 1.0,
                "seed": request.sampling.seed,
                "stop": list(request.stop),
            },
        }

    def _event(self, data: bytes) -> ServerEvent:
        event = msgspec.json.decode(data, type=_OllamaEvent)
        return ServerEvent(
            text=event.response,
            reason=_REASONS.get(event.done_reason, FinishReason.STOP) if event.done else None,
            prompt_read=event.prompt_eval_count,
            written=event.eval_count,
            last=event.done,
        )


PROTOCOLS: tuple[OpenAiProtocol, ...] = (
    LlamaServerProtocol(),
    OllamaProtocol(),
    VllmProtocol(),
    SglangProtocol(),
    OpenAiProtocol(),
)
"""In the order of probing: the most particular answer first."""


def prompt_as_text(prompt: Prompt) -> str:
    """Return a prompt as text in which only control tokens of the format are spelled like control tokens.

    A space is put into those that stand in literal text, because a server without a tokenizer to ask reads all alike.
    """
    parts = []
    for special, segments in groupby(prompt, lambda segment: segment.special):
        # Pieces of literal text that stand side by side could make a control token together.
        text = "".join(segment.text for segment in segments)
        parts.append(text if special else _CONTROL_TOKEN.sub(r"\g<0> ", text))
    return "".join(parts)


def literal_pieces(text: str) -> Sequence[str]:
    """Return ``text`` in pieces that hold no whole control token, so that each is tokenized as plain text."""
    pieces, begin = [], 0
    for match in _CONTROL_TOKEN.finditer(text):
        pieces.append(text[begin : match.end()])
        begin = match.end()
    return [piece for piece in (*pieces, text[begin:]) if piece]


_REASONS: Mapping[str | None, FinishReason] = {"length": FinishReason.LENGTH, "stop": FinishReason.STOP}


class _Failure(msgspec.Struct):
    """An event of any kind, as far as it says that the answer failed."""

    error: Any = None


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None


class _ChoiceLogprobs(msgspec.Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    text: str | None = ""
    finish_reason: str | None = None
    logprobs: _ChoiceLogprobs | None = None


class _CompletionEvent(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class _OllamaEvent(msgspec.Struct):
    response: str = ""
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


def _logprobs(raw: _ChoiceLogprobs) -> tuple[TokenLogprob, ...]:
    tops = raw.top_logprobs or [None] * len(raw.tokens)
    return tuple(
        TokenLogprob(token, 0.0 if logprob is None else logprob, tuple((top or {}).items()))
        for token, logprob, top in zip(raw.tokens, raw.token_logprobs, tops, strict=False)
    )
