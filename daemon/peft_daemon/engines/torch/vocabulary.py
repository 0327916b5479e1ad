"""Tokens as the bytes they stand for in running text, and which of them end an answer.

A token need not hold whole characters, and a tokenizer's own decoder changes the spaces at the beginning of what it
is given. So answers are put together from bytes, as llama.cpp does.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ENDS = frozenset(
    {
        *("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<EOT>", "</s>", "<eos>"),
        *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    }
)
"""Control tokens after which nothing follows, whatever the model's own end token is (llama.cpp's list)."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"
"""What SentencePiece writes for a space."""


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        backend = tokenizer.backend_tokenizer
        ids = backend.get_vocab(with_added_tokens=True)
        added = {id_: token.content for id_, token in backend.get_added_tokens_decoder().items()}
        special = {id_ for id_, token in backend.get_added_tokens_decoder().items() if token.special}
        self._bytes = [b""] * (max(ids.values()) + 1)
        decoder = repr(backend.decoder)
        byte_level = _spelled_bytes() if "ByteLevel" in decoder else None
        for token, id_ in ids.items():
            if id_ in added:
                self._bytes[id_] = added[id_].encode()
            elif byte_level is not None:
                self._bytes[id_] = bytes(byte_level[c] for c in token) if byte_level.keys() >= set(token) else b""
            elif byte := _BYTE.fullmatch(token):
                self._bytes[id_] = bytes([int(byte[1], 16)])
            else:
                self._bytes[id_] = token.replace(_SPACE, " ").encode()
        self.ends = frozenset(
            {id_ for id_ in special if added[id_] in ENDS} | {tokenizer.eos_token_id} - {None},
        )
        self._sorted = sorted((text, id_) for id_, text in enumerate(self._bytes) if text and id_ not in special)
        self._by_bytes = dict(reversed(self._sorted))

    def text(self, token: int) -> bytes:
        """What a token stands for; nothing for a row of the model's head that is no token."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def beginning(self, text: bytes) -> list[int]:
        """The tokens with which an answer that is to begin with ``text`` (not empty) may begin."""
        following = (self._sorted[at] for at in range(bisect_left(self._sorted, (text, -1)), len(self._sorted)))
        longer = takewhile(lambda entry: entry[0].startswith(text), following)
        shorter = (self._by_bytes.get(text[:length]) for length in range(1, len(text)))
        return [*(id_ for _, id_ in longer), *(id_ for id_ in shorter if id_ is not None)]


def _spelled_bytes() -> dict[str, int]:
    """Byte by the character that byte-level vocabularies write for it (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
