"""A model's tokenizer: that of a GGUF file gives the same tokens as llama.cpp for any text; a folder has its own.

Text is tokenized literally. Control tokens come only from their own pieces of a prompt, so that a file that contains
``<|fim_middle|>`` cannot steer the model, in tuning or serving. The tokenizer is not stored on the disk: building it
takes 0.7 s, reading one back 0.4 s. Source: llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from peft_core.errors import InvalidInput
from peft_core.gguf import TokenKind, Vocabulary, read_vocabulary
from peft_daemon.engines.base import Prompt
from peft_daemon.models.hub_folder import read_folder_vocabulary, read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONTRACTIONS = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRETOKENIZERS = {
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_OTHERS}",
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_OTHERS}",
}
"""Patterns, by ``tokenizer.ggml.pre``, that split a text into the parts within which tokens are made."""

_ROLES = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
_SPACE = "▁"
"""What SentencePiece writes for a space."""
END_TOKENS = frozenset(
    {
        *("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<EOT>", "</s>", "<eos>"),
        *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    }
)
"""Control tokens that end an answer, beside the model's own end token (llama.cpp's list)."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class LiteralTokenizer:
    """Tokenizes text and prompts as the engine does."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Copies the tokenizer of a ``LoadedBase``."""
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True  # as text
        self._special = {
            token.content: id_ for id_, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of ``text``, taken literally; nothing is added at either end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, taken literally."""
        return [len(self.encode_text(text)) for text in texts]

    def special_id(self, name: str) -> int:
        """Return the id of a control token; raises InvalidInput if the model has none of that name."""
        if name not in self._special:
            raise InvalidInput(
                f"the model has no control token {name!r}",
                why="the prompt format was made for another family",
                fix="Choose a format of this model's family, or `instruct-v1`, which needs no control tokens",
            )
        return self._special[name]

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt; each segment is tokenized on its own, as the engine does."""
        ids: list[int] = []
        for piece in prompt:
            ids += [self.special_id(piece.text)] if piece.special else self.encode_text(piece.text)
        return ids


class ByteVocabulary:
    """The tokens of one model as bytes."""

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
            {id_ for id_ in special if added[id_] in END_TOKENS} | {tokenizer.eos_token_id} - {None},
        )
        self._sorted = sorted((text, id_) for id_, text in enumerate(self._bytes) if text and id_ not in special)
        self._by_bytes = dict(reversed(self._sorted))

    def text(self, token: int) -> bytes:
        """Return the bytes of a token; none for a row of the model's head that is no token."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def beginning(self, text: bytes) -> list[int]:
        """Return the tokens that an answer may begin with if it must begin with ``text`` (not empty)."""
        following = (self._sorted[at] for at in range(bisect_left(self._sorted, (text, -1)), len(self._sorted)))
        longer = takewhile(lambda entry: entry[0].startswith(text), following)
        shorter = (self._by_bytes.get(text[:length]) for length in range(1, len(text)))
        return [*(id_ for _, id_ in longer), *(id_ for id_ in shorter if id_ is not None)]


def encoder_frame(tokenizer: PreTrainedTokenizerFast) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that stand before and after what an encoder reads.

    They are those that the family's own tokenizer adds (``<s>`` and ``</s>`` for CodeT5+), else its end token.
    """
    backend = tokenizer.backend_tokenizer
    bare, framed = (tuple(backend.encode("x", add_special_tokens=added).ids) for added in (False, True))
    at = next((at for at in range(len(framed)) if framed[at : at + len(bare)] == bare), 0)
    if framed != bare:
        return framed[:at], framed[at + len(bare) :]
    end = tokenizer.eos_token_id
    return (), (end,) if isinstance(end, int) else ()


def _spelled_bytes() -> dict[str, int]:
    """Return each byte by the character that stands for it in byte-level vocabularies (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer in a GGUF file.

    Raises NotFound, or InvalidInput for an unknown kind of vocabulary.
    """
    vocabulary = read_vocabulary(path)
    if vocabulary.model == "llama":
        tokenizer = _sentencepiece(vocabulary)
    elif vocabulary.model == "gpt2" and vocabulary.pretokenizer in PRETOKENIZERS:
        tokenizer = _byte_level(vocabulary)
    else:
        raise InvalidInput(
            f"{path} has a vocabulary of the kind {vocabulary.model!r}, {vocabulary.pretokenizer!r}",
            why=f"known are 'llama', and 'gpt2' with {' or '.join(PRETOKENIZERS)}",
            fix="Choose another base with `--base`",
        )
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind in {TokenKind.CONTROL, TokenKind.UNKNOWN}
        ]
    )
    # llama.cpp finds these in any text, also in literal text.
    tokenizer.add_tokens(
        [
            AddedToken(token, special=False, normalized=False)
            for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind == TokenKind.USER_DEFINED
        ]
    )
    return _with_roles(tokenizer, vocabulary)


def load_folder_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a folder in transformers' layout, as its ``tokenizer.json`` has it.

    Raises NotFound, or InvalidInput for a tokenizer that cannot be read.
    """
    vocabulary, content = read_folder_vocabulary(path), read_tokenizer(path)
    try:
        tokenizer = Tokenizer.from_str(msgspec.json.encode(content).decode())
    except Exception as error:  # the library raises nothing narrower
        raise InvalidInput(
            f"the tokenizer in {path} cannot be read", why=str(error)[:300], fix="Fetch the folder again"
        ) from None
    return _with_roles(tokenizer, vocabulary)


def _with_roles(tokenizer: Tokenizer, vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers' libraries want it."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  (seconds)

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        chat_template=vocabulary.metadata.get("tokenizer.chat_template"),
        **{
            role: vocabulary.tokens[int(vocabulary.metadata[key])]
            for name, role in _ROLES.items()
            if (key := f"tokenizer.ggml.{name}_token_id") in vocabulary.metadata
        },
    )


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    """Build a byte-level BPE like GPT-2's; like llama.cpp, it does not normalize Unicode."""
    merges = [(first, second) for first, _, second in (merge.partition(" ") for merge in vocabulary.merges)]
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    words = pre_tokenizers.Split(Regex(PRETOKENIZERS[vocabulary.pretokenizer]), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    """Build SentencePiece's BPE, which first merges the neighbours whose union has the highest score."""
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    normal = {
        token for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if kind == TokenKind.NORMAL
    }
    merges: list[tuple[str, str]] = []
    for token in sorted(normal, key=lambda token: (-vocabulary.scores[ids[token]], ids[token])):
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        merges += [(first, second) for first, second in halves if first in normal and second in normal]
    unknown = vocabulary.tokens[int(vocabulary.metadata.get("tokenizer.ggml.unknown_token_id", 0))]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", _SPACE)
    prefixed = vocabulary.metadata.get("tokenizer.ggml.add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces
    texts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*texts, decoders.Strip(" ", 1, 0)] if prefixed else texts)
    return tokenizer
