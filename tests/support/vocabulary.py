"""Vocabularies of a few tokens, as a model's file would have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft_core.gguf import TokenKind, Vocabulary


def vocabulary(
    control: Iterable[str],
    *,
    plain: Iterable[str] = ("a", "b"),
    kind: TokenKind = TokenKind.CONTROL,
    model: str = "gpt2",
    pretokenizer: str = "",
    **metadata: Any,
) -> Vocabulary:
    """Plain tokens first, then control tokens (of another ``kind`` if asked for).

    ``bos=TOKEN`` and the like name tokens; other keywords are metadata, ``chat_template`` among them.
    """
    plain, control = list(plain), list(control)
    tokens = (*plain, *control)
    named = {f"ggml.{name}_token_id": tokens.index(token) for name, token in metadata.items() if token in tokens}
    others = {name: value for name, value in metadata.items() if value not in tokens}
    return Vocabulary(
        model=model,
        pretokenizer=pretokenizer,
        tokens=tokens,
        kinds=(TokenKind.NORMAL,) * len(plain) + (kind,) * len(control),
        merges=(),
        scores=(),
        metadata={
            f"tokenizer.{name if '.' in name or name == 'chat_template' else f'ggml.{name}'}": value
            for name, value in {**named, **others}.items()
        },
    )
