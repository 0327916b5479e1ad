"""Messages between the daemon and the torch engine's child: one JSON object a line, over the child's pipes.

There is no socket, so no other process can speak to the child. Both sides import this module; it imports no heavy
library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from peft_core.wire_errors import ErrorBody
from peft_daemon.engines.base import GenerationChunk, GenerationRequest
from peft_daemon.engines.waiting import WaitPolicy


class TorchChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The first line to the child, its whole configuration."""

    model: str
    """A GGUF file, or a folder in transformers' layout."""
    precision: str
    """``float32``, ``bfloat16``, ``nf4``, ``int8``, or ``auto``: nf4 on CUDA, float32 on a CPU."""
    context_tokens: int
    threads: int
    wait_policy: WaitPolicy = "auto"
    step_tokens: int
    """Prompt tokens that a CPU reads between two checks for a cancelled request."""
    max_loaded_adapters: int
    reads: list[str] = []
    """All files and folders that it reads, with those to which links of the model lead."""
    confined: bool = True
    """Whether it gives up the network and all other files, where the system can keep it from them."""


class TorchChildReady(msgspec.Struct, frozen=True, kw_only=True):
    """The child's first line, once it accepts requests."""

    device: str
    precision: str


class GenerateCommand(msgspec.Struct, frozen=True, tag="generate"):
    """Answered by chunks up to the one with a reason, or by an ``ErrorMessage``."""

    id: int
    request: GenerationRequest


class CancelCommand(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a generation; its last chunk comes when it has stopped."""

    id: int


class CountTokensCommand(msgspec.Struct, frozen=True, tag="count"):
    """Answered at once by ``TokenCountsMessage``, also while an answer is generated."""

    id: int
    texts: list[str]


class ChunkMessage(msgspec.Struct, frozen=True, tag="chunk"):
    """A piece of an answer; one with a reason is the last."""

    id: int
    chunk: GenerationChunk


class ErrorMessage(msgspec.Struct, frozen=True, tag="error"):
    """An error instead of an answer, or in the middle of one; it is the last message of its request."""

    id: int
    error: ErrorBody


class TokenCountsMessage(msgspec.Struct, frozen=True, tag="counts"):
    """The number of tokens of each text."""

    id: int
    counts: list[int]


class LoadedAdaptersMessage(msgspec.Struct, frozen=True, tag="loaded"):
    """Digests of the adapters in memory, sent when they change."""

    digests: list[str]


class CardMemoryMessage(msgspec.Struct, frozen=True, tag="card"):
    """The most memory that the child had in use on a graphics card, sent when it has grown."""

    bytes: int


ChildCommand = GenerateCommand | CancelCommand | CountTokensCommand
ChildMessage = ChunkMessage | ErrorMessage | TokenCountsMessage | LoadedAdaptersMessage | CardMemoryMessage


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


encode = msgspec.json.Encoder(enc_hook=str).encode
"""Return a message as one line, without its end."""
decode_command = msgspec.json.Decoder(ChildCommand, dec_hook=_decode_path).decode
decode_message = msgspec.json.Decoder(ChildMessage).decode
