"""Messages between the daemon and the torch engine's child: one JSON object a line, over the child's pipes.

There is no socket, so no other process can speak to the child. Both sides import this module; it imports no heavy
library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from peft_core.wire_errors import ErrorBody
from peft_daemon.engines.base import Delta, Finish, GenerationRequest, WaitPolicy


class TorchChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The first line to the child, which reads no settings of its own."""

    model: str
    """A GGUF file, or a folder in transformers' layout."""
    precision: str
    """``float32``, ``bfloat16``, ``nf4``, ``int8``, or ``auto``: nf4 on CUDA, float32 on a CPU."""
    context_tokens: int
    threads: int
    wait_policy: WaitPolicy = "passive"
    step_tokens: int
    """Prompt tokens that a CPU reads between two checks whether the request is cancelled."""
    max_loaded_adapters: int


class TorchChildReady(msgspec.Struct, frozen=True, kw_only=True):
    """The child's first line, once it accepts requests."""

    device: str
    precision: str


class GenerateCommand(msgspec.Struct, frozen=True, tag="generate"):
    """Answered by any number of ``Produced`` and one ``Finished`` or ``Refused``."""

    id: int
    request: GenerationRequest


class CancelCommand(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a generation; it still ends with ``Finished``, when it has stopped."""

    id: int


class CountTokensCommand(msgspec.Struct, frozen=True, tag="count"):
    """Answered at once by ``Counted``, also while a request is decoded."""

    id: int
    texts: list[str]


class DeltaMessage(msgspec.Struct, frozen=True, tag="produced"):
    """A piece of an answer."""

    id: int
    delta: Delta


class FinishMessage(msgspec.Struct, frozen=True, tag="finished"):
    """The end of an answer."""

    id: int
    finish: Finish


class ErrorMessage(msgspec.Struct, frozen=True, tag="refused"):
    """An expected failure, and the end of an answer."""

    id: int
    error: ErrorBody


class TokenCountsMessage(msgspec.Struct, frozen=True, tag="counted"):
    """How many tokens each text has."""

    id: int
    counts: list[int]


class LoadedAdaptersMessage(msgspec.Struct, frozen=True, tag="loaded"):
    """Digests of the adapters in memory, whenever they change."""

    digests: list[str]


ChildCommand = GenerateCommand | CancelCommand | CountTokensCommand
ChildMessage = DeltaMessage | FinishMessage | ErrorMessage | TokenCountsMessage | LoadedAdaptersMessage


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


encode = msgspec.json.Encoder(enc_hook=str).encode
"""A message as one line without its end."""
decode_command = msgspec.json.Decoder(ChildCommand, dec_hook=_decode_path).decode
decode_message = msgspec.json.Decoder(ChildMessage).decode
