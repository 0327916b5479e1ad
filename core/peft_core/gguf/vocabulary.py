"""The vocabulary a GGUF file carries: its tokens, their kinds, merges and scores. Builds no tokenizer."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from peft_core.errors import InvalidInput
from peft_core.gguf.header import ARRAY, SCALARS, STRING, U32, U64, Parser, Scalar


class TokenKind(IntEnum):
    """What a token of a GGUF vocabulary is (llama.cpp's ``llama_token_type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids."""

    model: str
    """``gpt2`` (byte-level BPE) or ``llama`` (SentencePiece)."""
    pretokenizer: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    """Pairs with a space between them, most frequent first; empty for SentencePiece."""
    scores: tuple[float, ...]
    """Of SentencePiece; empty for BPE."""
    metadata: dict[str, Any]
    """The rest of ``tokenizer.*``: ids of special tokens, the chat template."""


def read_vocabulary(path: Path) -> Vocabulary:
    """Read it from the file's header (half a second for 150,000 tokens); raises InvalidInput when there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        values: dict[str, Any] = dict(_WithArrays(data).header().metadata)
    part = "tokenizer.ggml."
    tokens = tuple(values.get(f"{part}tokens", ()))
    if not tokens:
        raise InvalidInput(f"{path} has no vocabulary", fix="Pull the model again with `peft-daemon models pull`")
    return Vocabulary(
        model=str(values.get(f"{part}model", "")),
        pretokenizer=str(values.get(f"{part}pre", "")),
        tokens=tokens,
        kinds=tuple(values.get(f"{part}token_type", (TokenKind.NORMAL,) * len(tokens))),
        merges=tuple(values.get(f"{part}merges", ())),
        scores=tuple(values.get(f"{part}scores", ())),
        metadata={key: value for key, value in values.items() if key.startswith("tokenizer.") and _single(value)},
    )


def _single(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


class _WithArrays(Parser):
    """Reads arrays of strings and of numbers, too."""

    def value(self, kind: int) -> Scalar | None:
        if kind != ARRAY:
            return super().value(kind)
        item, count = self.number(U32), self.number(U64)
        if item in SCALARS:
            form, start = SCALARS[item], self.position
            self.advance(count * form.size)
            return struct.unpack_from(f"<{count}{form.format[1:]}", self.data, start)  # type: ignore[return-value]
        if item == STRING:
            return tuple(self.string() for _ in range(count))  # type: ignore[return-value]
        for _ in range(count):
            self.value(item)
        return None
